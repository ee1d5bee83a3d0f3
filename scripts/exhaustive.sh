#!/usr/bin/env bash
# The slow tests, one after the other, each with its figure; about four hours on two cores.
#
#   scripts/exhaustive.sh [PART...]     parts: simulate differential killtest matrix cuts chaos sentinel demo tcl tclrepl bench syncbench lagbench away
#                                         bigdata (default: all)
#
# Prints a summary and fails if a part failed. What each printed is kept in target/exhaustive.
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
logs=$target/exhaustive
mkdir -p "$logs"
cd "$root" || exit 1

scripts/setup.sh && scripts/peers.sh || exit 1
[ -n "${ARDB_SERVER:-}" ] || cargo build --quiet --release -p ardb-server || exit 1
cargo build --quiet --release -p ardb-e2e -p ardb-sim --bins || exit 1
export ARDB_SERVER=${ARDB_SERVER:-$target/release/ardb-server}

parts=("$@")
[ $# -gt 0 ] || parts=(simulate differential killtest matrix cuts chaos sentinel demo tcl tclrepl bench syncbench lagbench away bigdata)
summary=() bad=0
for part in "${parts[@]}"; do
    case $part in
    simulate) command=("$target/release/simulate" --seeds "0..${SEEDS:-10000}") ;;
    differential) command=("$target/release/differential" --commands "${COMMANDS:-1000000}") ;;
    killtest) command=("$target/release/killtest" --kills "${KILLS:-100}") ;;
    matrix)
        scripts/peers.sh all || exit 1
        command=("$target/release/matrix" --seconds "${SECONDS_A_PAIR:-60}")
        ;;
    cuts) command=("$target/release/cuts" --cuts "${CUTS:-1000}") ;;
    chaos) command=("$target/release/chaos" --minutes "${MINUTES:-15}") ;;
    sentinel) command=("$target/release/sentinel" --failovers "${FAILOVERS:-20}") ;;
    demo) command=(scripts/demo.sh) ;;
    tcl) command=(scripts/tcl-suite.sh) ;;
    tclrepl) command=(scripts/tcl-replication.sh) ;;
    bench) command=("$target/release/bench" --rounds "${ROUNDS:-3}" --goals "${GOALS:-1=0.8,16=0.5}") ;;
    syncbench) command=("$target/release/syncbench" --keys "${KEYS:-5000000}") ;;
    lagbench) command=("$target/release/lagbench" --rounds "${LAG_ROUNDS:-3}" --goals yes) ;;
    away) command=("$target/release/away" --seconds "${AWAY:-600}" --replicas "${AWAY_REPLICAS:-ardb}") ;;
    bigdata) command=("$target/release/bigdata") ;;
    *) echo "exhaustive: no part $part"; exit 2 ;;
    esac
    printf '\n== %s\n' "${command[*]}"
    begin=$SECONDS
    if "${command[@]}" 2>&1 | tee "$logs/$part.log"; [ "${PIPESTATUS[0]}" = 0 ]; then outcome=passed; else outcome=FAILED bad=1; fi
    summary+=("$(printf '%-14s %s in %d s' "$part" "$outcome" $((SECONDS - begin)))")
done
printf '\n'
printf '%s\n' "${summary[@]}"
exit $bad
