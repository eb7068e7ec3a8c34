#!/usr/bin/env bash
# Proves that the simulated world can fail: builds the engine with one promise taken out at a time (tests/sabotage/*.patch, each
# applied to a copy of the sources) and expects `cargo test --test simulation` to fail. Ends with 1 if a sabotaged build passes.
set -euo pipefail
cd "$(dirname "$0")/.."
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
survived=0
for patch in tests/sabotage/*.patch; do
  rm -rf "$copy/source"
  mkdir "$copy/source"
  git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$copy/source"
  (cd "$copy/source" && patch --quiet --strip=1) <"$patch"
  name=$(basename "$patch" .patch)
  if ! (cd "$copy/source" && CARGO_TARGET_DIR="$copy/target" cargo test --quiet --test simulation --no-run) >"$copy/log" 2>&1; then
    echo "$name: does not build"
    tail -n 20 "$copy/log"
    survived=1
  elif (cd "$copy/source" && RUST_BACKTRACE=0 CARGO_TARGET_DIR="$copy/target" cargo test --quiet --test simulation) >"$copy/log" 2>&1; then
    echo "$name: PASSED, which it must not"
    survived=1
  else
    echo "$name: fails, as it must: $(grep -A1 'panicked at' "$copy/log" | sed -n 2p)"
  fi
done
exit "$survived"
