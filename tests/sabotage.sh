#!/usr/bin/env bash
# Proves that the tests can fail: builds the engine with one promise taken out at a time (tests/sabotage/*.patch, each applied to
# a copy of the sources) and expects the tests to fail that its line `Tests:` names (without one: the simulated world). Ends
# with 1 if a sabotaged build passes. `tests/sabotage.sh sync_off` tries that one alone. SABOTAGE_TARGET: a target folder to keep
# between runs; never the one you work with, since it is left with sabotaged binaries.
set -euo pipefail
cd "$(dirname "$0")/.."
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
export CARGO_TARGET_DIR=${SABOTAGE_TARGET:-$copy/target} RUST_BACKTRACE=0
survived=0
for patch in tests/sabotage/${1:-*}.patch; do
  rm -rf "$copy/source"
  mkdir "$copy/source"
  git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$copy/source"
  (cd "$copy/source" && patch --quiet --strip=1) <"$patch"
  name=$(basename "$patch" .patch)
  tests=$(sed -n 's/^Tests: //p' "$patch")
  read -ra tests <<<"${tests:---test simulation}"
  if ! (cd "$copy/source" && cargo test --quiet "${tests[@]:0:2}" --no-run) >"$copy/log" 2>&1; then
    echo "$name: does not build"
    tail -n 20 "$copy/log"
    survived=1
  elif (cd "$copy/source" && cargo test --quiet "${tests[@]}") >"$copy/log" 2>&1; then
    echo "$name: PASSED, which it must not"
    survived=1
  else
    echo "$name: fails, as it must:"
    { grep -m1 -A3 'panicked at' "$copy/log" || tail -n 4 "$copy/log"; } | cut -c 1-200 | sed 's/^/    /'
  fi
done
exit "$survived"
