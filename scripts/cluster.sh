#!/usr/bin/env bash
# A cluster on this machine's loopback: three nats-servers and three nodes, for a first look and for killing things.
#
#   scripts/cluster.sh run           builds roomcast, starts all, prints the doors, and ends all with Ctrl-C
#
# and from another terminal, with NAME one of node-1, node-2, node-3, nats-1, nats-2, nats-3:
#
#   scripts/cluster.sh status        all processes and their doors, and the cluster as a living node shows it
#   scripts/cluster.sh kill NAME     kill -9
#   scripts/cluster.sh start NAME    starts a killed one again, with what it kept on disk
#   scripts/cluster.sh restart NAME  lets it end by itself, as for an upgrade, and starts it again
#   scripts/cluster.sh pause NAME    stops it as a hung machine would be, without its end
#   scripts/cluster.sh resume NAME   lets a paused one go on
#
# ROOMCAST_BINARY names a built roomcast, instead of a build. ROOMCAST_CLUSTER_PORT (7600) is the first of the ports
# that are used: node-1 has the next three, node-2 those ten above, node-3 those twenty above, the nats-servers those
# from forty above on. Configuration, data, logs and pids are in target/cluster.
set -euo pipefail
cd "$(dirname "$0")/.."

# A node takes these for keys of its configuration, and refuses them.
export -n ROOMCAST_BINARY ROOMCAST_CLUSTER_PORT
state=${CARGO_TARGET_DIR:-target}/cluster
port=${ROOMCAST_CLUSTER_PORT:-7600}
# Other commands are for the cluster that runs, whichever ports it has.
[[ ${1:-} == run || ! -e $state/port ]] || port=$(<"$state/port")
names=(nats-1 nats-2 nats-3 node-1 node-2 node-3)
# Seconds until the NATS servers have elected leaders, and until a node is ready.
ready_within=30
# Seconds for a goodbye.
ends_within=15

fail() {
    echo "cluster.sh: $*" >&2
    exit 1
}

usage() {
    sed -n '2,18s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

is_name() {
    [[ " ${names[*]} " == *" $1 "* ]]
}

# The number in a name.
number() {
    echo "${1##*-}"
}

nats_port() {
    echo $((port + 40 + $1))
}

routes_port() {
    echo $((port + 50 + $1))
}

monitor_port() {
    echo $((port + 60 + $1))
}

# The first of the three ports of a node: viewer, publisher and operator door.
node_port() {
    echo $((port + 10 * ($1 - 1)))
}

# The pid of a process that lives; nothing if it does not.
pid_of() {
    local pid command
    pid=$(cat "$state/$1.pid" 2>/dev/null) || return 0
    command=$({ tr '\0' ' ' <"/proc/$pid/cmdline"; } 2>/dev/null) || return 0
    # A pid may have gone to another program since. At its start a process is a copy of this script.
    if [[ $command == *"$(program_of "$1")"* || $command == *cluster.sh* ]]; then
        echo "$pid"
    fi
}

program_of() {
    case $1 in
    nats-*) echo "$state/$1.conf" ;;
    # Its configuration is in its environment, and its first door in its arguments.
    *) echo "127.0.0.1:$(node_port "$(number "$1")")" ;;
    esac
}

# Asks for a path at a port of this machine, and prints the answer.
ask() {
    exec 3<>"/dev/tcp/127.0.0.1/$1" || return 1
    printf 'GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: close\r\n\r\n' "$2" "$1" >&3
    timeout 2 cat <&3 || true
    exec 3>&-
}

# Waits until the answer to a path at a port holds a text.
await() {
    local name=$1 at=$2 path=$3 text=$4 since=$SECONDS
    until [[ $(ask "$at" "$path" 2>/dev/null) == *"$text"* ]]; do
        [[ -n $(pid_of "$name") ]] || fail "$name has ended: $state/$name.log says why"
        ((SECONDS - since < ready_within)) || fail "$name is not ready: $state/$name.log says more"
        sleep 0.1
    done
}

write_nats_conf() {
    local n=$1 other routes=""
    for other in 1 2 3; do
        routes+="${routes:+, }\"nats://127.0.0.1:$(routes_port "$other")\""
    done
    cat >"$state/nats-$n.conf" <<EOF
server_name: nats-$n
listen: "127.0.0.1:$(nats_port "$n")"
http: "127.0.0.1:$(monitor_port "$n")"
# A message is acknowledged when it is on the disks, and not up to two minutes before.
jetstream { store_dir: "$state/nats-$n", max_file_store: 100GB, sync_interval: always }
cluster { name: roomcast, listen: "127.0.0.1:$(routes_port "$n")", routes: [ $routes ] }
# What a node needs with its messages, and what it may ask of the servers themselves.
accounts {
    ROOMCAST { jetstream: enabled, users: [ { user: roomcast, password: roomcast } ] }
    SYS { users: [ { user: sys, password: sys } ] }
}
system_account: SYS
no_auth_user: roomcast
# A connection that does not read is ended, before it holds up the others.
max_pending: 64MB
write_deadline: "10s"
EOF
}

start_nats() {
    local n=$1
    write_nats_conf "$n"
    setsid "$(cat "$state/nats-server")" --config "$state/nats-$n.conf" >>"$state/nats-$n.log" 2>&1 &
    echo $! >"$state/nats-$n.pid"
    # Its end is told below, and not by the shell.
    disown
}

start_node() {
    local n=$1 at
    at=$(node_port "$n")
    ROOMCAST__CLUSTER__NATS="[\"nats://127.0.0.1:$(nats_port 1)\", \"nats://127.0.0.1:$(nats_port 2)\", \
\"nats://127.0.0.1:$(nats_port 3)\"]" \
        ROOMCAST__CLUSTER__NODE="node-$n" \
        ROOMCAST__CLUSTER__VIEWER_URL="ws://127.0.0.1:$at" \
        setsid "$(cat "$state/roomcast")" --viewer-listen "127.0.0.1:$at" \
        --publisher-listen "127.0.0.1:$((at + 1))" --ops-listen "127.0.0.1:$((at + 2))" \
        >>"$state/node-$n.log" 2>&1 &
    echo $! >"$state/node-$n.pid"
    disown
}

start() {
    [[ -z $(pid_of "$1") ]] || fail "$1 is running"
    case $1 in
    nats-*) start_nats "$(number "$1")" ;;
    *) start_node "$(number "$1")" ;;
    esac
}

await_ready() {
    local n
    n=$(number "$1")
    case $1 in
    nats-*) await "$1" "$(monitor_port "$n")" /healthz '"ok"' ;;
    *) await "$1" "$(($(node_port "$n") + 2))" /readyz "200 OK" ;;
    esac
}

send() {
    local pid
    pid=$(pid_of "$2")
    [[ -n $pid ]] || fail "$2 is not running"
    kill "-$1" "$pid"
}

restart() {
    local since=$SECONDS
    send TERM "$1"
    while [[ -n $(pid_of "$1") ]]; do
        ((SECONDS - since < ends_within)) || fail "$1 has not ended in $ends_within s: $state/$1.log says more"
        sleep 0.1
    done
    start "$1"
    await_ready "$1"
}

# All processes. The cluster is asked of the first node that can answer.
status() {
    local name pid at n asked=""
    for name in "${names[@]}"; do
        pid=$(pid_of "$name")
        n=$(number "$name")
        if [[ -z $pid ]]; then
            printf '%-7s dead\n' "$name"
            continue
        fi
        if [[ $(sed -nE 's/^State:\s+(\S).*/\1/p' "/proc/$pid/status") == T ]]; then
            printf '%-7s paused   pid %-7d ' "$name" "$pid"
        else
            printf '%-7s running  pid %-7d ' "$name" "$pid"
            [[ $name == nats-* || -n $asked ]] || asked=http://127.0.0.1:$(($(node_port "$n") + 2))
        fi
        if [[ $name == nats-* ]]; then
            printf 'nats://127.0.0.1:%d\n' "$(nats_port "$n")"
        else
            at=$(node_port "$n")
            printf 'viewers ws://127.0.0.1:%d  publishers http://127.0.0.1:%d  operators http://127.0.0.1:%d\n' \
                "$at" $((at + 1)) $((at + 2))
        fi
    done
    [[ -n $asked ]] || return 0
    echo
    # Its exit code tells of troubles, which it prints.
    "$(cat "$state/roomcast")" cluster status --ops-door "$asked" || true
}

# Ends all that lives, the nodes first: they say goodbye to their devices, and need the servers until then.
end_all() {
    local kind n pid since
    trap - EXIT INT TERM
    for kind in node nats; do
        for n in 1 2 3; do
            pid=$(pid_of "$kind-$n")
            [[ -n $pid ]] || continue
            # A paused process hears nothing else.
            kill -CONT "$pid" 2>/dev/null || true
            kill -TERM "$pid" 2>/dev/null || true
        done
        since=$SECONDS
        while living "$kind" && ((SECONDS - since < ends_within)); do
            sleep 0.1
        done
        for n in 1 2 3; do
            pid=$(pid_of "$kind-$n")
            [[ -z $pid ]] || kill -KILL "$pid" 2>/dev/null || true
        done
    done
}

# True while a process of this kind lives.
living() {
    local n
    for n in 1 2 3; do
        [[ -z $(pid_of "$1-$n") ]] || return 0
    done
    return 1
}

run() {
    local name ended=""
    for name in "${names[@]}"; do
        [[ -z $(pid_of "$name") ]] || fail "$name is running: a cluster is there already"
    done
    rm -rf "$state"
    mkdir -p "$state"
    state=$(cd "$state" && pwd)
    echo "$port" >"$state/port"
    echo "starting three nats-servers and three nodes: some seconds, and minutes where they have to be built" >&2
    bash scripts/nats.sh >"$state/nats-server"
    if [[ -z ${ROOMCAST_BINARY:-} ]]; then
        cargo build --release --bin roomcast
        ROOMCAST_BINARY=${CARGO_TARGET_DIR:-target}/release/roomcast
    fi
    realpath "$ROOMCAST_BINARY" >"$state/roomcast"
    trap end_all EXIT
    trap 'exit 130' INT TERM
    for name in "${names[@]}"; do
        start "$name"
        [[ $name != nats-3 ]] || for_each_ready nats
    done
    for_each_ready node
    status
    echo "Ctrl-C ends all; \`scripts/cluster.sh kill node-1\` in another terminal ends one."
    while :; do
        sleep 1
        for name in "${names[@]}"; do
            if [[ -n $(pid_of "$name") ]]; then
                ended=${ended/ $name/}
            elif [[ $ended != *" $name"* ]]; then
                ended+=" $name"
                echo "$name has ended"
            fi
        done
    done
}

for_each_ready() {
    local n
    for n in 1 2 3; do
        await_ready "$1-$n"
    done
}

if [[ -d $state ]]; then
    state=$(cd "$state" && pwd)
fi
case ${1:-} in
run) run ;;
status) status ;;
kill | start | restart | pause | resume)
    is_name "${2:-}" || usage
    [[ -d $state ]] || fail "no cluster is running: begin with scripts/cluster.sh run"
    case $1 in
    kill) send KILL "$2" ;;
    pause) send STOP "$2" ;;
    resume) send CONT "$2" ;;
    start) start "$2" && await_ready "$2" ;;
    restart) restart "$2" ;;
    esac
    ;;
*) usage ;;
esac
