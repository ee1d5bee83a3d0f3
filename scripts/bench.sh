#!/usr/bin/env bash
# redis-benchmark against the server and against Redis 7.0 (append-only file, synced every second), side by side.
#
#   scripts/bench.sh        N (requests, default 200000), KEYS (default 1000000), PIPELINES (default "1 16"), ROUNDS (default 2),
#                           TESTS, CLIENTS (default 50) and GOAL_1, GOAL_16 (the least ratios, default 0.8 and 0.5) may be set
#
# Each round runs both servers, in turns of order, so that a machine that slows down hurts both. Every test runs alone
# against its server; the figure of a server is the median over the rounds. Prints requests a second and the ratio, and
# fails if a ratio is under its goal.
set -uo pipefail

# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
prepare
n=${N:-200000}
keys=${KEYS:-1000000}
clients=${CLIENTS:-50}
pipelines=${PIPELINES:-1 16}
rounds=${ROUNDS:-2}
tests=${TESTS:-ping,set,get,incr,lpush,rpush,lpop,rpop,sadd,hset,spop,zadd,zpopmin,lrange,mset}
bench=$bin/redis-benchmark

if stands_in; then own_options=(--appendonly yes --appendfsync everysec); else own_options=(--appendfsync everysec); fi

# measure NAME PORT PIPELINE: appends lines "name pipeline test requests-a-second" to the results.
measure() {
    "$bench" -p "$2" -t "$tests" -n "$n" -r "$keys" -c "$clients" -P "$3" --csv 2>/dev/null |
        sed -nE 's/^"([^"]+)","([0-9.]+)".*/\1\t\2/p' | grep -v '^test' |
        while IFS=$'\t' read -r test speed; do printf '%s\t%s\t%s\t%s\n' "$1" "$3" "$test" "$speed"; done >>"$results"
}

results=$work/results
: >"$results"
for round in $(seq "$rounds"); do
    for pipeline in $pipelines; do
        order=(redis ardb)
        [ $((round % 2)) = 1 ] || order=(ardb redis)
        for name in "${order[@]}"; do
            port=$(free_port)
            dir=$work/$name-$round-$pipeline
            if [ "$name" = redis ]; then
                start "$bin/redis-server-7.0" "$port" "$dir" --appendonly yes --appendfsync everysec
            else
                start "$ardb" "$port" "$dir" "${own_options[@]}"
            fi
            printf 'round %s, -P %s: %s\n' "$round" "$pipeline" "$name" >&2
            measure "$name" "$port" "$pipeline"
            kill "$started"
            while kill -0 "$started" 2>/dev/null; do sleep 0.05; done
            rm -rf "$dir"
        done
    done
done

awk -F '\t' -v goal1="${GOAL_1:-0.8}" -v goal16="${GOAL_16:-0.5}" -v pipelines="$pipelines" '
    { key = $2 FS $3; if (!(key in seen)) { seen[key] = 1; order[++count] = key }
      at = $1 FS key; number[at]++; value[at, number[at]] = $4 }
    function median(at,   i, j, t, n) {
        n = number[at]
        for (i = 1; i <= n; i++) for (j = i + 1; j <= n; j++)
            if (value[at, i] > value[at, j]) { t = value[at, i]; value[at, i] = value[at, j]; value[at, j] = t }
        return n == 0 ? 0 : n % 2 ? value[at, (n + 1) / 2] : (value[at, n / 2] + value[at, n / 2 + 1]) / 2
    }
    END {
        printf "%-4s %-40s %10s %10s %7s\n", "-P", "test", "redis", "ardb", "ratio"
        for (i = 1; i <= count; i++) {
            split(order[i], part, FS)
            redis = median("redis" FS order[i]); ardb = median("ardb" FS order[i])
            ratio = redis > 0 ? ardb / redis : 0
            goal = part[1] == 1 ? goal1 : goal16
            low = ratio < goal
            bad += low
            printf "%-4s %-40s %10.0f %10.0f %7.2f%s\n", part[1], part[2], redis, ardb, ratio, low ? "  under " goal : ""
        }
        printf "%d of %d under their goal\n", bad, count
        exit bad > 0
    }' "$results"
