#!/usr/bin/env bash
# Runs the replication files of Redis 7.0's Tcl suite, which start the servers themselves, and prints a table and the names of what failed.
#
#   scripts/tcl-replication.sh [FILE...]      default: all of them
#
# SIDES says which of a file's servers are ours: "both" (all), "first" (the first, third ... that a file starts; the others are
# Redis 7.0), "second" (the second, fourth ...). Default: "both first second". Where a file has two servers, "first" and "second" put
# ours on each side of the link alone. A restarted server stays what it was.
#
# The files mostly wait, so JOBS of them (default 3) run at a time, in no order. The table at the end is that of docs/compat.md.
#
# Time limit a file: LIMIT seconds (default 900). The exit status is 1 if anything failed that is not listed in
# scripts/tcl-replication-known.txt (side, or * for each; file; the test's name or a /pattern/; the reason; tabs between). KEEP names a folder for what the runs printed.
#
# Each run of a file has a scratch copy of the suite and ports of its own. Changed there: src/redis-server is a script that starts what SIDES
# says; and a block of servers that ended with an error leaves those around it alone.
# An error outside of a test's checks ends its block of servers; "--durable" lets the other blocks run all the same.
set -uo pipefail

# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
prepare
suite=$root/.peers/redis-7.0-src
[ -f "$suite/runtest" ] || "$root/scripts/peers.sh" suite || die "no suite"
limit=${LIMIT:-900}
jobs=${JOBS:-3}
[[ $jobs =~ ^[1-9][0-9]?$ ]] || die "JOBS is a number from 1 to 99, not $jobs"
known=$root/scripts/tcl-replication-known.txt
read -ra sides <<<"${SIDES:-both first second}"

files=("$@")
[ $# -gt 0 ] || files=(integration/{replication,replication-2,replication-3,replication-4,replication-psync,replication-buffer}
    integration/{psync2,psync2-reg,psync2-pingoff,psync2-master-restart,block-repl,failover} unit/wait)

# copy_suite DIR: a copy of the suite for one run. What it wants beside its tests and the server is linked.
copy_suite() {
    mkdir -p "$1/src"
    ln -s "$suite"/* "$1" 2>/dev/null
    rm "$1/tests"
    cp -rL "$suite/tests" "$1/tests"
    # In a block of servers that ended with an error the suite takes the server off its list twice; "--durable" meets that.
    sed -i 's/^            if {!$assertion \&\& $::durable} {/&\n                dict unset srv client; lappend ::servers $srv/' "$1/tests/support/server.tcl"
    ln -s "$suite"/src/redis-{cli,benchmark,check-rdb} "$1/src"
    cat >"$1/src/redis-server" <<WRAPPER
#!/usr/bin/env bash
# Which server stands behind a configuration is decided when it is first started, and noted beside its data.
# CONFIG REWRITE may have quoted it.
dir=\$(sed -nE 's/^dir "?([^"]*)"?\$/\1/p' "\$1")
if [ ! -f "\$dir/stands" ]; then
    n=\$(cat "\$COUNT" 2>/dev/null || echo 0)
    echo \$((n + 1)) >"\$COUNT"
    case \$SIDE-\$((n % 2)) in both-* | first-0 | second-1) echo "$ardb" ;; *) echo "$bin/redis-server-7.0" ;; esac >"\$dir/stands"
fi
exec "\$(cat "\$dir/stands")" "\$@"
WRAPPER
    chmod +x "$1/src/redis-server"
}

plain() { sed -e 's/\x1b\[[0-9;]*m//g' "$1"; }
# names KIND FILE: the names of the tests with this outcome. The time at a line's end is dropped.
names() { plain "$2" | sed -nE "s/^\[($1)\]: (.*)/\2/p" | sed -E 's/ \([0-9]+ ms\)$//; s/ in tests\/(unit|integration)[^ ]*$//'; }
# reason SIDE FILE TEST: why the test is known to fail, if it is.
reason() {
    [ -f "$known" ] || return 1
    awk -F '\t' -v side="$1" -v file="$2" -v test="$3" '
        ($1 == "*" || $1 == side) && $2 == file &&
            ($3 == test || ($3 ~ /^\/.*\/$/ && test ~ substr($3, 2, length($3) - 2))) { print $4; found = 1; exit }
        END { exit !found }' "$known"
}

# run SIDE FILE PORT: runs one file. Its outcome is in $work/SIDE-FILE.row (tests that were ok, that failed, seconds) and .failed.
run() {
    local name copy out begin=$SECONDS status
    name=$1-$(basename "$2") copy=$work/copy-$1-$(basename "$2") out=$work/$1-$(basename "$2").out
    copy_suite "$copy"
    # The programs that a file leaves behind when its time is up are in its process group.
    (cd "$copy" && SIDE=$1 COUNT=$copy/count exec setsid timeout -k 5 "$limit" tclsh tests/test_helper.tcl --single "$2" --durable \
        --clients 1 --timeout "$limit" --baseport "$3" --portcount "$((step - 32))") >"$out" 2>&1 </dev/null &
    echo $! >"$work/$name.pid"
    wait $!
    status=$?
    rm "$work/$name.pid"
    names 'err|exception' "$out" | sort -u >"$work/$name.failed"
    [ $status = 0 ] || [ -s "$work/$name.failed" ] || printf '(the run ended with status %s)\n' "$status" >"$work/$name.failed"
    [ $status = 124 ] && printf '(time ran out)\n' >>"$work/$name.failed"
    printf '%d %d %d\n' "$(names ok "$out" | wc -l)" "$(wc -l <"$work/$name.failed")" $((SECONDS - begin)) >"$work/$name.row"
    rm -rf "$copy"
    # shellcheck disable=SC2046
    printf '%-8s %-36s %6d %6d %4d s\n' "$1" "$2" $(cat "$work/$name.row")
}

# Whoever ends this script ends the runs too.
end_runs() {
    local file
    for file in "$work"/*.pid; do [ -f "$file" ] && kill "$(cat "$file")" 2>/dev/null; done
    wait
}
trap 'end_runs; exit 130' INT TERM

# Files that take long come first, so that none of them is alone at the end.
long=" $(printf '%s ' integration/{replication,replication-psync,psync2,failover,replication-buffer,replication-4,psync2-reg}) "
order=()
for file in $long "${files[@]}"; do
    [ -f "$suite/tests/$file.tcl" ] || { printf '%-8s %-36s not in this suite\n' - "$file"; continue; }
    [[ " ${files[*]} " == *" $file "* && " ${order[*]} " != *" $file "* ]] && order+=("$file")
done

# Each run has so many ports: 32 for the suite's own server, the others for the servers.
step=122 port=$((20032 + RANDOM % 40 * 100)) running=0
printf '%-8s %-36s %6s %6s %6s\n' side file ok failed time
for file in "${order[@]}"; do
    for side in "${sides[@]}"; do
        [ $running -lt "$jobs" ] || { wait -n; running=$((running - 1)); }
        run "$side" "$file" $port &
        running=$((running + 1)) port=$((port + step))
    done
done
wait

# The table, and what failed, in the order of the files.
bad=0 failures=$work/failures
: >"$failures"
for side in "${sides[@]}"; do
    for file in "${files[@]}"; do
        [ -f "$suite/tests/$file.tcl" ] || continue
        name=$side-$(basename "$file")
        [ -f "$work/$name.row" ] || { printf '(it has not run)\n' >"$work/$name.failed"; echo '0 1 0' >"$work/$name.row"; }
        while IFS= read -r test; do printf '%s\t%s\t%s\n' "$side" "$file" "$test"; done <"$work/$name.failed" >>"$failures"
    done
done

# cell SIDE FILE...: ok and failed of these files together.
cell() {
    local side=$1 file ok=0 failed=0 one two
    shift
    for file in "$@"; do
        read -r one two _ <"$work/$side-$(basename "$file").row"
        ok=$((ok + one)) failed=$((failed + two))
    done
    printf ' %d / %d |' $ok $failed
}
{
    printf '\n| file |'; printf ' %s |' "${sides[@]}"
    printf '\n|---|'; printf '%s' "${sides[@]/*/---|}"
    for file in "${files[@]}"; do
        [ -f "$suite/tests/$file.tcl" ] || continue
        printf '\n| %s |' "$file"
        for side in "${sides[@]}"; do cell "$side" "$file"; done
    done
    printf '\n| total |'
    for side in "${sides[@]}"; do cell "$side" "${order[@]}"; done
    printf '\n'
} | tee "$work/table.md"

if [ -s "$failures" ]; then
    echo
    while IFS=$'\t' read -r side file test; do
        if why=$(reason "$side" "$file" "$test"); then
            printf 'known:  %s %s: %s (%s)\n' "$side" "$file" "$test" "$why"
        else
            printf 'FAILED: %s %s: %s\n' "$side" "$file" "$test"
            bad=1
        fi
    done <"$failures"
fi
[ -z "${KEEP:-}" ] || { mkdir -p "$KEEP" && cp "$work"/*.out "$work/table.md" "$KEEP"; }
exit $bad
