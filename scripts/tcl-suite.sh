#!/usr/bin/env bash
# Runs the Tcl suite of Redis 7.0 against the server, unit by unit, and prints a table and the names of what failed.
#
#   scripts/tcl-suite.sh [UNIT...]      default: the units of the types and commands that the server has
#
# Each unit has a server and a run of its own, so that one that crashes or hangs costs no other. Tags: TAGS (default
# "-slow -needs:debug -needs:config-maxmemory"). Time limit a unit: LIMIT seconds (default 240). The exit status is 1 if anything
# failed that is not listed in scripts/tcl-known.txt (unit, a tab, the test's name, a tab, the reason).
#
# The server has one network thread: some tests send to several connections and wait for no reply, and take it that the commands are
# executed in that order, which nothing promises where two threads read them.
#
# An error in a test's body ends the run of its unit. So tests of what the server does not have are left out, and shown:
# those of scripts/tcl-skip.txt (unit, a tab, the test's name or /pattern, a tab, the reason). The units run in a scratch copy, where
# unit/scripting has only its half for EVAL: its other half is about functions.
set -uo pipefail

# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
prepare
suite=$root/.peers/redis-7.0-src
[ -f "$suite/runtest" ] || "$root/scripts/peers.sh" suite || die "no suite"
tags=${TAGS:--slow -needs:debug -needs:config-maxmemory}
limit=${LIMIT:-240}
known=$root/scripts/tcl-known.txt
skips=$root/scripts/tcl-skip.txt

# The copy. What the suite wants beside its tests (programs, default configuration) is linked.
copy=$work/suite
mkdir -p "$copy"
ln -s "$suite"/* "$copy"
rm "$copy/tests"
cp -rL "$suite/tests" "$copy/tests"
sed -i 's/^foreach is_eval {0 1} {/foreach is_eval {1} {/' "$copy/tests/unit/scripting.tcl"

units=("$@")
[ $# -gt 0 ] || units=(unit/type/{string,incr,list,list-2,list-3,set,hash,zset}
    unit/{expire,keyspace,scan,sort,multi,auth,protocol,bitops,bitfield,hyperloglog,geo,pubsub,scripting,dump,other,quit,introspection-2})

plain() { sed -e 's/\x1b\[[0-9;]*m//g' "$1"; }
# names KIND FILE: the names of the tests with this outcome. The time at a line's end is dropped.
names() { plain "$2" | sed -nE "s/^\[($1)\]: (.*)/\2/p" | sed -E 's/ \([0-9]+ ms\)$//; s/ in tests\/unit.*$//'; }
# lines UNIT FILE: the second column of the unit's lines.
lines() { [ ! -f "$2" ] || awk -F '\t' -v unit="$1" '$1 == unit { print $2 }' "$2"; }

total_ok=0 total_failed=0 total_ignored=0 total_skipped=0 bad=0
failures=$work/failures
skipped_names=$work/skipped
: >"$failures"
: >"$skipped_names"
printf '%-24s %6s %6s %7s %7s %6s\n' unit ok failed ignored skipped time
for unit in "${units[@]}"; do
    [ -f "$suite/tests/$unit.tcl" ] || { printf '%-24s not in this suite\n' "$unit"; continue; }
    out=$work/$(echo "$unit" | tr / _).out
    port=$(free_port)
    dir=$work/$(echo "$unit" | tr / _)
    if stands_in; then more=(--enable-debug-command yes); else more=(--io-threads 1); fi
    start "$ardb" "$port" "$dir" "${more[@]}"
    pid=$started
    begin=$SECONDS
    skip=()
    while IFS= read -r test; do skip+=(--skiptest "$test"); done < <(lines "$unit" "$skips")
    # shellcheck disable=SC2086
    (cd "$copy" && timeout -k 5 "$limit" tclsh tests/test_helper.tcl --host 127.0.0.1 --port "$port" --single "$unit" \
        --tags "$tags" --timeout "$limit" "${skip[@]}") >"$out" 2>&1 </dev/null
    status=$?
    kill -0 "$pid" 2>/dev/null && alive=1 || alive=0
    kill -9 "$pid" 2>/dev/null
    ok=$(names ok "$out" | wc -l)
    ignored=$(names ignore "$out" | wc -l)
    names skip "$out" | sed "s|^|$unit\t|" >"$out.skipped"
    skipped=$(wc -l <"$out.skipped")
    cat "$out.skipped" >>"$skipped_names"
    names 'err|exception' "$out" | sort -u | sed "s|^|$unit\t|" >"$out.failed"
    [ $status = 0 ] || [ -s "$out.failed" ] || printf '%s\t(the run ended with status %s)\n' "$unit" "$status" >"$out.failed"
    [ $status = 124 ] && printf '%s\t(time ran out after %s s)\n' "$unit" "$limit" >>"$out.failed"
    [ $alive = 1 ] || printf '%s\t(the server died)\n' "$unit" >>"$out.failed"
    failed=$(wc -l <"$out.failed")
    cat "$out.failed" >>"$failures"
    printf '%-24s %6d %6d %7d %7d %4d s\n' "$unit" "$ok" "$failed" "$ignored" "$skipped" $((SECONDS - begin))
    total_ok=$((total_ok + ok)) total_failed=$((total_failed + failed)) total_ignored=$((total_ignored + ignored))
    total_skipped=$((total_skipped + skipped))
done
printf '%-24s %6d %6d %7d %7d\n' total "$total_ok" "$total_failed" "$total_ignored" "$total_skipped"

if [ -s "$skipped_names" ]; then
    echo
    sed 's/^/skipped: /' "$skipped_names"
    case " ${units[*]} " in *" unit/scripting "*) echo "skipped: unit/scripting	its second half, the same tests through FUNCTION LOAD and FCALL" ;; esac
fi

if [ -s "$failures" ]; then
    echo
    while IFS= read -r failure; do
        if [ -n "$failure" ] && lines "${failure%%$'\t'*}" "$known" | grep -qxF -- "${failure#*$'\t'}"; then
            printf 'known:  %s\n' "$failure"
        else
            printf 'FAILED: %s\n' "$failure"
            bad=1
        fi
    done <"$failures"
    # What each failure said, for whoever looks into it.
    [ -z "${KEEP:-}" ] || { mkdir -p "$KEEP" && cp "$work"/*.out "$KEEP"; }
fi
exit $bad
