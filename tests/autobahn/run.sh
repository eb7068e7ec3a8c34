#!/bin/sh
# Runs Autobahn's fuzzing client against an echo built from the engine's own reader, and prints how many cases ended how.
# Exits non-zero if one failed. Deflate (12.*, 13.*) is left out: the engine does not negotiate it.
#
# Needs cargo and pyenv. The first run sets up Python 2.7 in target/autobahn, because the suite wants it.
set -eu

cd "$(dirname "$0")/../.."
PORT=${AUTOBAHN_PORT:-7690}
DIR=${CARGO_TARGET_DIR:-target}/autobahn
PYTHON_VERSION=2.7.18

if [ ! -x "$DIR/python/bin/wstest" ]; then
    PYENV=$(command -v pyenv || echo "${PYENV_ROOT:-$HOME/.pyenv}/bin/pyenv")
    [ -x "$PYENV" ] || { echo "autobahn: NOT RUN: pyenv is missing" >&2; exit 77; }
    "$PYENV" install --skip-existing "$PYTHON_VERSION"
    PYTHON="$("$PYENV" prefix "$PYTHON_VERSION")/bin/python"
    mkdir -p "$DIR"
    "$PYTHON" -m pip install --quiet --target "$DIR/virtualenv" virtualenv==20.15.1
    PYTHONPATH="$DIR/virtualenv" "$PYTHON" -m virtualenv --quiet "$DIR/python"
    "$DIR/python/bin/pip" install --quiet autobahntestsuite==25.10.1
fi

cargo build --quiet --features autobahn-echo --bin autobahn-echo
"${CARGO_TARGET_DIR:-target}/debug/autobahn-echo" "127.0.0.1:$PORT" &
ECHO_PID=$!
trap 'kill "$ECHO_PID" 2>/dev/null || true' EXIT

cat >"$DIR/spec.json" <<SPEC
{
  "outdir": "$DIR/report",
  "servers": [{"agent": "roomcast", "url": "ws://127.0.0.1:$PORT", "options": {"version": 18}}],
  "cases": ["*"],
  "exclude-cases": ["12.*", "13.*"],
  "exclude-agent-cases": {}
}
SPEC
rm -rf "$DIR/report"
"$DIR/python/bin/wstest" --mode fuzzingclient --spec "$DIR/spec.json" >"$DIR/wstest.log" 2>&1 || {
    tail -n 20 "$DIR/wstest.log" >&2
    exit 1
}
"$DIR/python/bin/python" tests/autobahn/summary.py "$DIR/report/index.json"
