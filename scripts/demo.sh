#!/usr/bin/env bash
# The main job, shown: a live Redis 7.0 is followed, killed servers go on where they were, a promoted server takes writes,
# and Redis 7.0 and 2.8 follow it in turn. Ends with an error at the first thing that is not as it should be.
#
#   scripts/demo.sh                 KEYS (default 200000) and RATE (writes a second, default 5000) may be set
set -uo pipefail

# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
prepare
keys=${KEYS:-200000}
rate=${RATE:-5000}
cli=$bin/redis-cli
cargo build --quiet --manifest-path "$root/Cargo.toml" --release -p ardb-e2e --bin workload || die "the workload cannot be built"
workload=$target/release/workload

begin=$SECONDS
step() { printf '\n[%3d s] %s\n' $((SECONDS - begin)) "$*"; }
note() { printf '        %s\n' "$*"; }
# info PORT SECTION FIELD
info() { "$cli" -p "$1" INFO "$2" | tr -d '\r' | sed -n "s/^$3://p"; }
# wait_for SECONDS WHAT COMMAND...: until the command succeeds.
wait_for() {
    local limit=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        [ $SECONDS -lt $limit ] || die "not in time: $what"
        sleep 0.1
    done
}
linked() { [ "$(info "$1" replication master_link_status)" = up ]; }
# equal MASTER REPLICA: the load must have ended.
equal() {
    local answer
    answer=$("$workload" --do compare --port "$1" --other "$2" --seconds 60) || { echo "$answer"; die "$3 differ"; }
    note "$3: $answer"
}
# load PORT SEED SECONDS: in the background; sets $load.
load() {
    "$workload" --do load --port "$1" --seed "$2" --seconds "$3" --rate "$rate" --keys 2000 >"$work/load" 2>&1 &
    load=$!
}
loaded() { wait "$load" || die "the load failed: $(cat "$work/load")"; note "load: $(cat "$work/load")"; }
check() { [ "$2" = "$3" ] || die "$1: $2, not $3"; note "$1: $2"; }

redis=$(free_port) own=$(free_port) second=$(free_port) third=$(free_port)
more=(--repl-backlog-size 256mb)
modern=(--repl-diskless-sync-delay 0)
stands_in && own_options=("${more[@]}" --appendonly yes) || own_options=("${more[@]}")

step "Redis 7.0 on port $redis gets $keys keys of all five types, with expiries"
start "$bin/redis-server-7.0" "$redis" "$work/redis7" "${more[@]}" "${modern[@]}"
redis_pid=$started
note "$("$workload" --do populate --port "$redis" --keys "$keys")"

step "writes go on at $rate a second; ardb-server on port $own is attached"
load "$redis" 2 20
start "$ardb" "$own" "$work/ardb" "${own_options[@]}"
"$cli" -p "$own" REPLICAOF 127.0.0.1 "$redis" >/dev/null
wait_for 60 "the first sync" linked "$own"
note "in sync after $((SECONDS - begin)) s; $(info "$own" keyspace db0)"
loaded
equal "$redis" "$own" "Redis 7.0 and ardb"

step "kill -9 of ardb in mid-load, and a restart"
load "$redis" 3 12
sleep 3
kill -9 "$started"
note "killed at offset $(info "$redis" replication master_repl_offset) of the master"
sleep 2
start "$ardb" "$own" "$work/ardb" "${own_options[@]}"
own_pid=$started
stands_in && "$cli" -p "$own" REPLICAOF 127.0.0.1 "$redis" >/dev/null
wait_for 30 "the link after the restart" linked "$own"
loaded
equal "$redis" "$own" "Redis 7.0 and ardb"
grep "Partial resynchronization request.*accepted" "$work/redis7/server.log" | tail -n 1 | sed 's/^/        Redis says: /'
stands_in || check "full syncs that Redis has sent" "$(info "$redis" stats sync_full)" 1
stands_in || check "partial syncs that Redis has accepted" "$(info "$redis" stats sync_partial_ok)" 1

step "promotion: Redis 7.0 ends, ardb becomes the master and takes writes"
old_id=$(info "$own" replication master_replid)
kill "$redis_pid"
"$cli" -p "$own" REPLICAOF NO ONE >/dev/null
check "role" "$(info "$own" replication role)" master
check "the old history's name lives on as the second id" "$(info "$own" replication master_replid2)" "$old_id"
[ "$(info "$own" replication master_replid)" != "$old_id" ] || die "the id did not change"
check "a write" "$("$cli" -p "$own" SET promoted yes)" OK

step "a fresh Redis 7.0 on port $second and a Redis 2.8 on port $third follow ardb under load"
load "$own" 4 15
start "$bin/redis-server-7.0" "$second" "$work/second" "${modern[@]}"
"$cli" -p "$second" REPLICAOF 127.0.0.1 "$own" >/dev/null
followers=("$second")
if ! stands_in; then # a Redis 7.0 that stands in sends what 2.8 cannot read
    start "$bin/redis-server-2.8" "$third" "$work/third"
    "$cli" -p "$third" SLAVEOF 127.0.0.1 "$own" >/dev/null
    followers+=("$third")
fi
for port in "${followers[@]}"; do wait_for 60 "the sync of port $port" linked "$port"; done
loaded
for port in "${followers[@]}"; do equal "$own" "$port" "ardb and the Redis on port $port"; done

step "kill -9 of ardb as master in mid-load, and a restart"
full=$(cat "$work"/{second,third}/server.log 2>/dev/null | grep -c "Full resync from master")
load "$own" 5 15
sleep 4
kill -9 "$own_pid"
# The port is free only once the process is gone altogether.
while kill -0 "$own_pid" 2>/dev/null; do sleep 0.05; done
start "$ardb" "$own" "$work/ardb" "${own_options[@]}"
sleep 1
for port in "${followers[@]}"; do wait_for 30 "the link of port $port" linked "$port"; done
loaded
for port in "${followers[@]}"; do equal "$own" "$port" "ardb and the Redis on port $port"; done
again=$(cat "$work"/{second,third}/server.log 2>/dev/null | grep -c "Full resync from master")
cat "$work"/{second,third}/server.log 2>/dev/null |
    grep -E "Successful partial resynchronization|Master accepted a Partial" | sed 's/^/        a replica says: /'
stands_in || check "full syncs of the two replicas, before and after" "$again" "$full"

step "all of it held"
