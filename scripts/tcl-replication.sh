#!/usr/bin/env bash
# Runs the replication files of Redis 7.0's Tcl suite, which start the servers themselves, and prints a table and the names of what failed.
#
#   scripts/tcl-replication.sh [FILE...]      default: all of them
#
# SIDES says which of a file's servers are ours: "both" (all), "first" (the first, third ... that a file starts; the others are
# Redis 7.0), "second" (the second, fourth ...). Default: "both first second". Where a file has two servers, "first" and "second" put
# ours on each side of the link alone. A restarted server stays what it was.
#
# Time limit a file: LIMIT seconds (default 900). The exit status is 1 if anything failed that is not listed in
# scripts/tcl-replication-known.txt (side, or * for each; file; the test's name or a /pattern/; the reason; tabs between). KEEP names a folder for what the runs printed.
#
# The files run in a scratch copy of the suite. Changed there: src/redis-server is a script that starts what SIDES says, and each side has its own ports;
# and a block of servers that ended with an error leaves those around it alone.
# An error outside of a test's checks ends its block of servers; "--durable" lets the other blocks run all the same.
set -uo pipefail

# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
prepare
suite=$root/.peers/redis-7.0-src
[ -f "$suite/runtest" ] || "$root/scripts/peers.sh" suite || die "no suite"
limit=${LIMIT:-900}
known=$root/scripts/tcl-replication-known.txt
read -ra sides <<<"${SIDES:-both first second}"

files=("$@")
[ $# -gt 0 ] || files=(integration/{replication,replication-2,replication-3,replication-4,replication-psync,replication-buffer}
    integration/{psync2,psync2-reg,psync2-pingoff,psync2-master-restart,block-repl,failover} unit/wait)

# The copy. What the suite wants beside its tests and the server is linked.
copy=$work/suite
mkdir -p "$copy/src"
ln -s "$suite"/* "$copy" 2>/dev/null
rm "$copy/tests"
cp -rL "$suite/tests" "$copy/tests"
# In a block of servers that ended with an error the suite takes the server off its list twice; "--durable" meets that.
sed -i 's/^            if {!$assertion \&\& $::durable} {/&\n                dict unset srv client; lappend ::servers $srv/' "$copy/tests/support/server.tcl"
ln -s "$suite"/src/redis-{cli,benchmark,check-rdb} "$copy/src"
cat >"$copy/src/redis-server" <<WRAPPER
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
chmod +x "$copy/src/redis-server"

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

bad=0 port=$((20000 + RANDOM % 40 * 100))
failures=$work/failures
: >"$failures"
printf '%-8s %-36s %6s %6s %6s\n' side file ok failed time
for side in "${sides[@]}"; do
    total_ok=0 total_failed=0
    for file in "${files[@]}"; do
        [ -f "$suite/tests/$file.tcl" ] || { printf '%-8s %-36s not in this suite\n' "$side" "$file"; continue; }
        out=$work/$side-$(basename "$file").out
        begin=$SECONDS
        # The programs that a file leaves behind when its time is up are in its process group.
        (cd "$copy" && SIDE=$side COUNT=$work/count exec setsid timeout -k 5 "$limit" tclsh tests/test_helper.tcl --single "$file" --durable \
            --clients 1 --timeout "$limit" --baseport "$port" --portcount 90) >"$out" 2>&1 </dev/null
        status=$?
        rm -f "$work/count"
        ok=$(names ok "$out" | wc -l)
        names 'err|exception' "$out" | sort -u >"$out.failed"
        [ $status = 0 ] || [ -s "$out.failed" ] || printf '(the run ended with status %s)\n' "$status" >"$out.failed"
        [ $status = 124 ] && printf '(time ran out)\n' >>"$out.failed"
        failed=$(wc -l <"$out.failed")
        while IFS= read -r test; do printf '%s\t%s\t%s\n' "$side" "$file" "$test"; done <"$out.failed" >>"$failures"
        printf '%-8s %-36s %6d %6d %4d s\n' "$side" "$file" "$ok" "$failed" $((SECONDS - begin))
        total_ok=$((total_ok + ok)) total_failed=$((total_failed + failed))
        rm -rf "${copy:?}"/tests/tmp/*
        port=$((port + 100))
    done
    printf '%-8s %-36s %6d %6d\n' "$side" total "$total_ok" "$total_failed"
done

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
[ -z "${KEEP:-}" ] || { mkdir -p "$KEEP" && cp "$work"/*.out "$KEEP"; }
exit $bad
