#!/usr/bin/env bash
# Runs the benches: `scripts/bench.sh` all of them, `scripts/bench.sh encode/level` those whose name holds that text.
# Times are of this machine, at this moment: compare runs made one after the other, with nothing else running. `cold`,
# `scatter` and `memory` print lines of their own, and run where none or one of those names is given.
set -euo pipefail
cd "$(dirname "$0")/.."
for bench in cold scatter memory; do
  if [ $# -eq 0 ] || [ "$1" = "$bench" ]; then cargo bench --locked --bench "$bench"; fi
done
case "${1:-}" in
cold | scatter | memory) ;;
*) exec cargo bench --locked --bench buffer --bench durable --bench encode --bench flow --bench segment --bench storm -- --noplot "$@" ;;
esac
