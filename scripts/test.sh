#!/usr/bin/env bash
# Everything that has to hold before a change is merged, from an empty machine with a Rust toolchain: style, lints,
# documentation, every test, and a thousand devices checked message by message. Stops at the first step that fails and
# says which. Needs the network only for what is missing. The lints read the benches too: code that does not compile
# fails there.
#
# One profile for all of it: the tests' own binaries carry the load as well, so that no dependency is built twice.
# (What is measured is measured elsewhere: scripts/bench.sh and docs/benchmarks.md, in release.)
set -euo pipefail
cd "$(dirname "$0")/.."

export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}
# A target directory that is thrown away afterwards fills faster without what a next build could use, and without the
# line numbers of frames: a panic names its own line all the same.
if [[ -n ${CI:-} ]]; then
    export CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_DEBUG=0
fi

step="setup"
server_pid=""
scratch=$(mktemp -d)

finish() {
    local code=$?
    if [[ -n $server_pid ]]; then
        kill -KILL "$server_pid" 2>/dev/null || true
    fi
    rm -rf "$scratch"
    if ((code != 0)); then
        echo "FAILED: $step (exit code $code)" >&2
    fi
}
trap finish EXIT

begin() {
    step=$1
    printf '\n=== %s (%d s)\n' "$step" "$SECONDS"
}

# The lints, the formatter and a C compiler (mimalloc is written in C). What is there is not looked for elsewhere.
install_what_is_missing() {
    if ! command -v cc >/dev/null; then
        if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
            echo "a C compiler (cc) is needed: install gcc or clang" >&2
            return 1
        fi
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends gcc libc6-dev
    fi
    if ! cargo fmt --version >/dev/null 2>&1; then
        rustup component add rustfmt
    fi
    if ! cargo clippy --version >/dev/null 2>&1; then
        rustup component add clippy
    fi
    cargo --version
}

binaries=${CARGO_TARGET_DIR:-target}/debug

# The address of one door, as the server said it; nothing before it has.
door() {
    sed -nE "s#^$1 door +[a-z]+://([^/ ]+).*#\1#p" "$scratch/doors"
}

# Starts the engine on free loopback ports.
start_server() {
    # Emptied here. The child does the redirection below, and until then the last server's doors would be read.
    : >"$scratch/doors"
    "$binaries/roomcast" --ephemeral --viewer-listen 127.0.0.1:0 --publisher-listen 127.0.0.1:0 \
        --ops-listen 127.0.0.1:0 >"$scratch/doors" 2>"$scratch/log" &
    server_pid=$!
    local tries
    for ((tries = 0; tries < 300; tries++)); do
        if [[ -n $(door operator) ]]; then
            return 0
        fi
        if ! kill -0 "$server_pid" 2>/dev/null; then
            break
        fi
        sleep 0.1
    done
    echo "the server did not open its doors:" >&2
    cat "$scratch/doors" "$scratch/log" >&2
    return 1
}

# Succeeds only if the server drains and leaves by itself, with exit code 0.
stop_server() {
    local code=0
    kill -TERM "$server_pid"
    # A drain ends within 30 s.
    timeout 60 tail --pid="$server_pid" -f /dev/null || kill -KILL "$server_pid"
    wait "$server_pid" || code=$?
    server_pid=""
    if ((code != 0)); then
        echo "the server left its drain with exit code $code:" >&2
        cat "$scratch/log" >&2
    fi
    return "$code"
}

# The number behind the first key of this name in a report, on a line of its own. The chat's keys come first.
figure() {
    sed -nE "/^ *\"$1\": [0-9]+,?\$/{s/[^0-9]*([0-9]+),?/\1/p;q}" "$scratch/report.json"
}

# A load of which the server refused a part proves that much less.
all_was_published() {
    local sent ok
    sent=$(figure sent) ok=$(figure ok)
    if [[ -z $sent || $sent == 0 || $sent != "$ok" ]]; then
        echo "of ${sent:-no} messages sent, ${ok:-none} were accepted" >&2
        return 1
    fi
}

# A run of the load generator with these flags. Exit code 99: a device missed, repeated, swapped or altered a
# message. Exit code 3: every promise was kept, and this machine was too slow to say how fast.
smoke() {
    local code=0
    start_server
    timeout 300 "$binaries/roomcast-loadgen" run "$@" --viewer-door "ws://$(door viewer)" \
        --publisher-door "http://$(door publisher)" --ops-door "http://$(door operator)" --json "$scratch/report.json" ||
        code=$?
    if ((code != 0 && code != 3)); then
        return "$code"
    fi
    all_was_published
    stop_server
}

begin "what the tests need"
install_what_is_missing

begin "format: cargo fmt"
cargo fmt --all --check

begin "lints: cargo clippy"
cargo clippy --workspace --all-targets --all-features --locked -- -D warnings

begin "documentation: cargo doc"
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

begin "a nats-server for the tests of clusters"
# Without one these tests say that they did not run.
NATS_SERVER=$(bash scripts/nats.sh) && export NATS_SERVER || unset NATS_SERVER

begin "tests: cargo test"
cargo test --workspace --locked 2>&1 | tee "$scratch/tests"

thousand=(--devices 1000 --rooms 4 --rate 200 --seconds 5 --reliable-rate 4 --drop-acks-share 0.1
    --reconnect-share 0.05)
begin "smoke: 1 000 devices, json"
# The floor takes three seconds: once is enough to see that it is measured.
smoke "${thousand[@]}" --encoding json --no-floor
begin "smoke: 1 000 devices, proto"
smoke "${thousand[@]}" --encoding proto
# The latencies it is held to are no business of a machine that does other things meanwhile.
begin "smoke: double-eleven, small"
smoke --scenario double-eleven --devices 600 --rooms 40 --seconds 12 --no-floor --set 'thresholds=["loss=0"]' \
    --set 'viewers.shape={ramp={over=5,from=0.5}}' --set 'storms=[{at=7,share=0.3,back_within=3}]'

# A test that needs root or a missing tool says that it did not run: such a test has not passed.
skipped=$(grep -o 'skipped: T.*' "$scratch/tests" || true)
if [[ -n $skipped ]]; then
    printf '\n=== NOT RUN on this machine: %d\n%s\n' "$(wc -l <<<"$skipped")" "$skipped"
fi
printf '\n=== every step passed (%d s)\n' "$SECONDS"
