#!/usr/bin/env bash
# Runs the benches: `scripts/bench.sh` all of them, `scripts/bench.sh encode/level` those whose name holds that text.
# Times are of this machine, at this moment: compare runs made one after the other, with nothing else running.
set -euo pipefail
cd "$(dirname "$0")/.."
exec cargo bench --locked --bench buffer --bench durable --bench encode --bench segment --bench storm -- --noplot "$@"
