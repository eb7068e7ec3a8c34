#!/usr/bin/env bash
# Runs the benches: `scripts/bench.sh` all of them, `scripts/bench.sh encode/level` those whose name holds that text.
# Times are of this machine, at this moment: compare runs made one after the other, with nothing else running. `cold`,
# `scatter`, `memory` and `overload` print lines of their own, and run where none or one of those names is given.
set -euo pipefail
cd "$(dirname "$0")/.."
case "${1:-overload}" in
overload) cargo build --locked --release -p roomcast-loadgen ;;
esac
for bench in cold scatter memory overload; do
  if [ $# -eq 0 ] || [ "$1" = "$bench" ]; then cargo bench --locked --bench "$bench"; fi
done
case "${1:-}" in
cold | scatter | memory | overload) ;;
*) exec cargo bench --locked --bench buffer --bench durable --bench encode --bench flow --bench segment --bench storm -- --noplot "$@" ;;
esac
