//! Differences of two runs: of their loads, which rule out a comparison, and of their machines. Pure.

use crate::figures::ratio;
use crate::report::{Report, Verdict};
use crate::scenario::file::Scenario;

/// Largest ratio of two rates of reliable messages. A report has only their number, and arrivals may be
/// random.
const RELIABLE_RATES_MAX: f64 = 1.1;
/// Keys of a scenario without an effect on the load. Another seed draws other devices for the same shares. The same
/// actions have other commands at another place.
const NOT_THE_LOAD: [&str; 6] = ["name", "about", "thresholds", "doors", "commands", "seed"];

/// The reason for not comparing two runs: different loads, or a run that says little about its node.
pub(crate) fn incomparable(old: &Report, new: &Report) -> Option<String> {
    let types = |report: &Report| {
        let each = report.types.rows().iter();
        each.map(|row| format!("{} {}/s", row.type_name, row.rate_per_s)).collect::<Vec<_>>().join(", ")
    };
    let shapes = [
        ("devices", old.devices.to_string(), new.devices.to_string()),
        ("rooms", old.rooms.to_string(), new.rooms.to_string()),
        ("seconds", old.seconds.to_string(), new.seconds.to_string()),
        ("payload bytes", old.payload_bytes.to_string(), new.payload_bytes.to_string()),
        ("encoding", old.encoding.subprotocol().to_owned(), new.encoding.subprotocol().to_owned()),
        ("types", types(old), types(new)),
        ("messages per request", old.messages_per_request.to_string(), new.messages_per_request.to_string()),
        ("reliable messages", reliable(old).to_owned(), reliable(new).to_owned()),
    ];
    if let Some((what, old, new)) = shapes.into_iter().find(|(_, old, new)| old != new) {
        return Some(difference(what, &old, &new));
    }
    if let Some((old, new)) = reliable_per_s(old).zip(reliable_per_s(new)) {
        let ratio = if old > 0.0 { new / old } else { 1.0 };
        if !(1.0 / RELIABLE_RATES_MAX..=RELIABLE_RATES_MAX).contains(&ratio) {
            return Some(difference("reliable messages", &format!("{old:.1}/s"), &format!("{new:.1}/s")));
        }
    }
    if let Some(what) = scenarios_differ(&old.scenario, &new.scenario) {
        return Some(what);
    }
    // The figures of such a run describe its generator, or nothing.
    for (report, name) in [(old, "old"), (new, "new")] {
        match report.verdict {
            Verdict::GeneratorLimited => return Some(format!("the {name} run was generator-limited")),
            Verdict::Partial => return Some(format!("the {name} run was stopped early")),
            Verdict::NothingPublished => return Some(format!("the {name} run published nothing")),
            Verdict::NothingJudged => return Some(format!("the {name} run judged nothing")),
            Verdict::Ok | Verdict::ThresholdFailed | Verdict::Violations => {}
        }
    }
    None
}

fn difference(what: &str, old: &str, new: &str) -> String {
    format!("{what}: {old} in the old report, {new} in the new report")
}

pub(crate) fn reliable_per_s(report: &Report) -> Option<f64> {
    report.reliable.as_ref().map(|reliable| ratio(reliable.sent, 1) / report.seconds)
}

fn reliable(report: &Report) -> &'static str {
    if report.reliable.is_some() { "some" } else { "none" }
}

/// The first key with different values in two scenarios. `None`: the same load.
fn scenarios_differ(old: &str, new: &str) -> Option<String> {
    let load = |text: &str| {
        // An older report may lack keys with defaults, so the defaults are filled in first.
        let known = toml::from_str::<Scenario>(text).map(|scenario| scenario.text());
        let mut table: toml::Table = toml::from_str(known.as_deref().unwrap_or(text)).ok()?;
        table.retain(|key, _| !NOT_THE_LOAD.contains(&key));
        Some(toml::Value::Table(table))
    };
    match (load(old), load(new)) {
        (Some(old), Some(new)) => differ("scenario", Some(&old), Some(&new)),
        (None, None) if old == new => None,
        _ => Some("scenario: one of the reports has no valid TOML".to_owned()),
    }
}

/// The first difference of two values, with the path of its keys.
fn differ(path: &str, old: Option<&toml::Value>, new: Option<&toml::Value>) -> Option<String> {
    if old == new {
        return None;
    }
    if let (Some(toml::Value::Table(old)), Some(toml::Value::Table(new))) = (old, new) {
        let keys = old.keys().chain(new.keys().filter(|key| !old.contains_key(*key)));
        let mut found = keys.filter_map(|key| differ(&format!("{path}.{key}"), old.get(key), new.get(key)));
        return found.next();
    }
    let said = |value: Option<&toml::Value>| value.map_or_else(|| "nothing".to_owned(), ToString::to_string);
    Some(difference(path, &said(old), &said(new)))
}

/// The differences of two runs' machines, a line each. Such runs are compared all the same: the effect of a
/// new kernel may be the question.
pub(crate) fn machines_differ(old: &Report, new: &Report) -> Vec<String> {
    let one = &old.environment;
    let other = &new.environment;
    let plain = [
        ("kernel", one.kernel.clone(), other.kernel.clone()),
        ("processor", one.processor.clone(), other.processor.clone()),
        ("processors", one.processors.to_string(), other.processors.to_string()),
        ("memory bytes", one.memory_bytes.to_string(), other.memory_bytes.to_string()),
        ("descriptors", one.descriptors_max.to_string(), other.descriptors_max.to_string()),
        ("roomcast-loadgen", one.loadgen.clone(), other.loadgen.clone()),
    ];
    let names = one.sysctls.keys().chain(other.sysctls.keys().filter(|key| !one.sysctls.contains_key(*key)));
    let sysctls = names.map(|name| {
        let [old, new] = [one, other].map(|of| of.sysctls.get(name).cloned());
        let missing = || "missing".to_owned();
        (&**name, old.unwrap_or_else(missing), new.unwrap_or_else(missing))
    });
    let differ = plain.into_iter().chain(sysctls).filter(|(_, old, new)| old != new);
    differ.map(|(name, old, new)| difference(name, &old, &new)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::made_up;

    fn told(change: impl FnOnce(&mut Report)) -> String {
        let mut new = made_up();
        change(&mut new);
        incomparable(&made_up(), &new).unwrap_or_default()
    }

    #[test]
    fn other_shapes_are_not_compared() {
        assert_eq!(told(|_| {}), "");
        assert_eq!(told(|new| new.devices = 7), "devices: 1000 in the old report, 7 in the new report");
        assert_eq!(told(|new| new.seconds = 60.0), "seconds: 12 in the old report, 60 in the new report");
        assert!(told(|new| new.payload_bytes = 9).starts_with("payload bytes"));
        assert!(
            told(|new| new.reliable.as_mut().unwrap().sent *= 2).contains("2.5/s in the old report, 5.0/s")
        );
        assert!(told(|new| new.reliable = None).starts_with("reliable messages: some"));
        assert!(
            told(|new| new.verdict = Verdict::GeneratorLimited).contains("new run was generator-limited")
        );
    }

    #[test]
    fn runs_of_other_kinds_are_not_compared_whatever_they_are_called() {
        let with = |sets: &[&str]| {
            let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
            Scenario::load(Some("reconnect-storm"), &sets).unwrap().text()
        };
        let told = |sets: &[&str]| scenarios_differ(&with(&[]), &with(sets)).unwrap_or_default();
        let called = ["name=\"other\"", "about=\"x\"", "seed=9", "thresholds=[\"p99<1s\"]"];
        assert_eq!(told(&called), "");
        assert!(told(&["storms=[]"]).starts_with("scenario.storms: "), "{}", told(&["storms=[]"]));
        assert!(told(&["habits.stall_share=0.5"]).starts_with("scenario.habits.stall_share: "));
        assert!(told(&["rooms.sizes=\"field\""]).starts_with("scenario.rooms.sizes: "));
        assert!(told(&["faults=[{at=\"1s\", run=\"true\"}]"]).starts_with("scenario.faults: "));
        assert_eq!(scenarios_differ("", &Scenario::default().text()), None, "defaults are no difference");
        assert!(scenarios_differ("devices", "").is_some());
    }

    #[test]
    fn other_machines_are_named_and_compared() {
        assert_eq!(machines_differ(&made_up(), &made_up()), [""; 0]);
        let mut new = made_up();
        new.environment.kernel = "7.0".to_owned();
        new.environment.sysctls.remove("net.core.somaxconn");
        let told = machines_differ(&made_up(), &new);
        assert_eq!(told[0], "kernel: 6.8.0-45-generic in the old report, 7.0 in the new report");
        assert_eq!(told[1], "net.core.somaxconn: 4096 in the old report, missing in the new report");
        assert_eq!((told.len(), incomparable(&made_up(), &new)), (2, None));
    }
}
