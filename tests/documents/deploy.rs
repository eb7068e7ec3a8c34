//! Holds the files of `deploy/` and the Dockerfile to the code: each is read as its own reader would read it, and the
//! names in it exist. `scripts/deploy.sh` runs the real readers (helm, promtool, hadolint, compose).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use roomcast::config::Config;
use roomcast::config::args::Args;
use roomcast::metrics::{DEFINITIONS, Definition, Kind};
use roomcast_core::limits::DRAIN_AGE_MAX;
use serde_json::Value;

use super::{node, read, table};

fn yaml(document: &str) -> Value {
    serde_saphyr::from_str(&read(document)).unwrap_or_else(|error| panic!("{document}: {error}"))
}

/// The texts under a key, anywhere in a document.
fn texts<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get(key).and_then(Value::as_str));
            members.values().for_each(|member| texts(member, key, found));
        }
        Value::Array(items) => items.iter().for_each(|item| texts(item, key, found)),
        _ => {}
    }
}

/// A metric in an expression, and the matchers behind it: label -> values.
#[derive(Debug)]
struct Selected {
    name: String,
    labels: BTreeMap<String, Vec<String>>,
}

fn is_name(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

/// The metrics of roomcast in an expression of Prometheus.
fn selected(expression: &str) -> Vec<Selected> {
    let starts = expression.match_indices("roomcast_").map(|(at, _)| at);
    let whole = starts.filter(|at| !expression[..*at].ends_with(is_name));
    whole.map(|at| select(&expression[at..])).collect()
}

fn select(from: &str) -> Selected {
    let name = &from[..from.find(|letter| !is_name(letter)).unwrap_or(from.len())];
    let matchers = from[name.len()..].strip_prefix('{').and_then(|rest| rest.split_once('}'));
    let mut labels: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let matchers = matchers.map_or("", |(matchers, _)| matchers);
    for matcher in matchers.split(',').filter(|matcher| !matcher.is_empty()) {
        let (label, value) = matcher.split_once('=').unwrap_or_else(|| panic!("{from}"));
        let values = value.trim_start_matches('~').trim_matches('"').split('|').map(str::to_owned);
        labels.insert(label.trim_end_matches('!').to_owned(), values.collect());
    }
    Selected { name: name.to_owned(), labels }
}

fn definition(name: &str) -> Option<&'static Definition> {
    let is_it = |row: &&Definition| {
        let series = ["_bucket", "_sum", "_count"].map(|end| format!("{}{end}", row.name));
        if row.kind == Kind::Histogram { series.contains(&name.to_owned()) } else { row.name == name }
    };
    DEFINITIONS.iter().find(is_it)
}

/// Labels that Prometheus adds to each series, and the one of a histogram's buckets.
const LABELS_OF_PROMETHEUS: [&str; 3] = ["job", "instance", "le"];

/// A misspelt name selects nothing: the alert stays silent for ever, and the panel empty.
#[test]
fn alerts_and_dashboard_select_series_that_a_node_shows() {
    let alerts = yaml("deploy/alerts.yaml");
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/roomcast.json")).unwrap();
    let mut expressions = Vec::new();
    texts(&alerts, "expr", &mut expressions);
    let from_alerts = expressions.len();
    texts(&dashboard, "expr", &mut expressions);
    texts(&dashboard["templating"], "query", &mut expressions);
    assert!(from_alerts > 20 && expressions.len() > from_alerts + 40, "the expressions were found");

    let server = tokio::runtime::Runtime::new().unwrap().block_on(async { node() });
    let shown = shown_by(&server);
    for expression in expressions {
        for Selected { name, labels } in selected(expression) {
            let row = definition(&name).unwrap_or_else(|| panic!("{name} in {expression}"));
            for (label, values) in labels {
                if LABELS_OF_PROMETHEUS.contains(&&*label) {
                    continue;
                }
                assert!(row.labels.contains(&&*label), "{name} has no label {label}: {expression}");
                for value in values {
                    let has = |line: &&str| line.contains(&format!("{label}=\"{value}\""));
                    let mut series = shown.lines().filter(|line| line.starts_with(&format!("{name}{{")));
                    assert!(series.any(|line| has(&line)), "{name} has no {label}={value}: {expression}");
                }
            }
        }
    }
}

/// The metrics of a running node.
fn shown_by(server: &roomcast::server::Server) -> String {
    use std::io::{Read, Write};
    let mut door = std::net::TcpStream::connect(server.ops_addr).unwrap();
    door.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    door.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    answer
}

#[test]
fn recorded_figures_are_shown_and_every_label_of_a_sum_exists() {
    let rules = read("deploy/alerts.yaml");
    let recorded: BTreeSet<&str> =
        rules.lines().filter_map(|line| line.split_once("- record: ").map(|(_, name)| name)).collect();
    let dashboard = read("deploy/grafana/roomcast.json");
    let words = |text: &str| -> BTreeSet<String> {
        let words = text.split(|letter| !is_name(letter) && letter != ':');
        words
            .filter(|word| word.starts_with("roomcast:") && !word.ends_with(':'))
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(recorded.len(), 4);
    assert!(
        words(&dashboard).iter().all(|word| recorded.contains(&**word)),
        "the dashboard has recorded figures"
    );
    assert!(words(&rules).iter().all(|word| recorded.contains(&**word)), "and so have the alerts");
    let labels: BTreeSet<&str> =
        DEFINITIONS.iter().flat_map(|row| row.labels).copied().chain(LABELS_OF_PROMETHEUS).collect();
    let mut sums = 0;
    for text in [&rules, &dashboard] {
        for list in [" by (", " on ("].into_iter().flat_map(|word| text.split(word).skip(1)) {
            let (list, _) = list.split_once(')').unwrap();
            assert!(list.split(", ").all(|label| labels.contains(label)), "by ({list})");
            sums += 1;
        }
    }
    assert!(sums > 30, "the sums were found: {sums}");
}

#[test]
fn every_alert_has_a_row_that_says_what_to_do() {
    let alerts = yaml("deploy/alerts.yaml");
    let rules =
        alerts["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap());
    let mut named = Vec::new();
    for rule in rules.filter(|rule| rule.get("alert").is_some()) {
        let name = rule["alert"].as_str().unwrap();
        let severity = rule["labels"]["severity"].as_str().unwrap();
        assert!(["page", "ticket"].contains(&severity), "{name}: {severity}");
        assert!(rule["annotations"]["summary"].as_str().is_some_and(|text| text.len() > 20), "{name}");
        named.push(format!("| `{name}` | {severity} |"));
    }
    let rows = table("docs/operations.md", "| alert | severity | means | do |");
    let starts: Vec<String> =
        rows.iter().map(|row| row.split_inclusive('|').take(3).collect::<String>()).collect();
    assert_eq!(starts, named, "docs/operations.md has the alerts of deploy/alerts.yaml, in their order");
}

/// The node's own words for the mistakes of a container's environment; files are looked for in `deploy/nats`.
fn mistakes(environment: &Value) -> Result<Config, String> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/nats");
    let variables = environment.as_object().unwrap().iter().map(|(name, value)| {
        let value = value.as_str().unwrap_or_else(|| panic!("{name} is text"));
        (name.clone(), value.replace("/etc/roomcast", here.to_str().unwrap()))
    });
    Config::load(&Args::default(), variables).map_err(|mistakes| mistakes.to_string())
}

#[test]
fn the_nodes_of_the_compose_file_have_a_configuration_without_mistakes() {
    let compose = yaml("deploy/compose.yaml");
    let services = compose["services"].as_object().unwrap();
    let prometheus = yaml("deploy/prometheus.yaml");
    let targets = prometheus["scrape_configs"][0]["static_configs"][0]["targets"].as_array().unwrap();
    let mut nodes = 0;
    for (name, service) in services.iter().filter(|(name, _)| name.starts_with("node-")) {
        let config =
            mistakes(&service["environment"]).unwrap_or_else(|mistakes| panic!("{name}: {mistakes}"));
        let cluster = config.cluster.unwrap();
        assert_eq!(&cluster.node, name);
        assert!(
            !cluster.allow_unsynced && cluster.system_credentials.is_some(),
            "the servers are asked if they sync"
        );
        for server in &cluster.servers {
            let host = server.strip_prefix("nats://").unwrap().strip_suffix(":4222").unwrap();
            assert!(services.contains_key(host), "{host}");
        }
        assert!(
            targets.contains(&format!("{name}:{}", config.ops_listen.port()).into()),
            "{name} is scraped"
        );
        // An open door knows no other names.
        let hosts = service["environment"]["ROOMCAST__HOSTS"].as_str().unwrap();
        assert!(hosts.contains(&format!("\"{name}\"")), "{name}");
        assert!(
            service["ports"]
                .as_array()
                .unwrap()
                .iter()
                .all(|port| port.as_str().unwrap().starts_with("127.0.0.1:"))
        );
        assert!(seconds(&service["stop_grace_period"]) > DRAIN_AGE_MAX.as_secs(), "{name} may drain");
        nodes += 1;
    }
    assert_eq!((nodes, targets.len()), (3, 3));
    let mut mounted = Vec::new();
    for volume in services.values().filter_map(|service| service["volumes"].as_array()).flatten() {
        let (from, _) = volume.as_str().unwrap().split_once(':').unwrap();
        mounted.extend(
            from.strip_prefix("./")
                .map(|file| Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(file)),
        );
    }
    assert!(mounted.len() >= 11 && mounted.iter().all(|file| file.is_file()), "{mounted:?}");
    let servers = read("deploy/nats/nats.conf");
    assert!(servers.contains("sync_interval: always"));
}

/// `45s`.
fn seconds(text: &Value) -> u64 {
    text.as_str().unwrap().strip_suffix('s').unwrap().parse().unwrap()
}

#[test]
fn the_image_is_built_by_the_projects_rust_and_asks_for_its_own_health() {
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let rust = manifest["workspace"]["package"]["rust-version"].as_str().unwrap();
    let dockerfile = read("Dockerfile");
    assert!(dockerfile.contains(&format!("FROM rust:{rust}-")), "{rust}");
    assert!(dockerfile.contains("CMD [\"/usr/bin/roomcast\", \"health\"]"));
    assert!(
        dockerfile.lines().any(|line| line == "USER 65532:65532"),
        "a number, so that Kubernetes sees that it is not root"
    );
    let ignored = read(".dockerignore");
    for kept in ignored.lines().filter_map(|line| line.strip_prefix('!')) {
        assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(kept).exists(), "{kept}");
    }
}

#[test]
fn the_chart_is_of_this_version_and_its_values_fit_its_schema() {
    let chart = yaml("deploy/helm/roomcast/Chart.yaml");
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
    let schema: Value = serde_json::from_str(&read("deploy/helm/roomcast/values.schema.json")).unwrap();
    let values = yaml("deploy/helm/roomcast/values.yaml");
    let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<String>>();
    let mut known = names(&schema["properties"]);
    // A chart above this one may set it.
    known.remove("global");
    assert_eq!(names(&values), known);
    assert_eq!(names(&values["nats"]), names(&schema["properties"]["nats"]["properties"]));
    let servers = yaml("deploy/helm/nats-values.yaml");
    assert_eq!(servers["config"]["jetstream"]["merge"]["sync_interval"], "always");
    let own = &servers["config"]["merge"]["accounts"]["ROOMCAST"];
    assert_eq!(own["users"].as_array().unwrap().len() as u64, values["replicas"].as_u64().unwrap());
    let nodes = read("deploy/helm/roomcast/templates/nodes.yaml");
    let drain = format!(
        "terminationGracePeriodSeconds: {{{{ add .Values.preStopSeconds {} }}}}",
        DRAIN_AGE_MAX.as_secs() + 15
    );
    assert!(nodes.contains(&drain), "{drain}");
}

/// Variables with these names are configuration; a misspelt one is a mistake of the node.
#[test]
fn every_variable_of_the_deployment_is_a_configuration_key() {
    let defaults = toml::Value::Table(read("config/default.toml").parse().unwrap());
    let mut variables = 0;
    for file in files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")) {
        let text = fs::read_to_string(&file).unwrap();
        for rest in text.split("ROOMCAST__").skip(1) {
            let name =
                rest[..rest.find(|letter| !is_name(letter)).unwrap_or(rest.len())].to_ascii_lowercase();
            let key = name.split("__").try_fold(&defaults, |at, part| at.get(part));
            assert!(key.is_some(), "{}: {name}", file.display());
            variables += 1;
        }
    }
    assert!(variables > 15, "the variables were found: {variables}");
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}
