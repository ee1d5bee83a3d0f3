# shellcheck shell=bash
# Shared by the scripts that start servers: where the programs are, and how a server is started and stopped.
# A script that sources this has $root, $bin (the real servers) and $ardb (the server under test).

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bin=$root/.peers/bin
target=${CARGO_TARGET_DIR:-$root/target}
ardb=${ARDB_SERVER:-$target/release/ardb-server}
case $ardb in /*) ;; *) ardb=$PWD/$ardb ;; esac

die() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

# Whether a real Redis stands in for the server under test (to try out the scripts themselves).
stands_in() { case $(basename "$ardb") in redis*) return 0 ;; *) return 1 ;; esac; }

# Makes sure that the programs are there, and builds the server if nobody has named one.
prepare() {
    [ -x "$bin/redis-server-7.0" ] && [ -x "$bin/redis-server-2.8" ] || "$root/scripts/peers.sh" || die "no real servers"
    if [ -z "${ARDB_SERVER:-}" ]; then
        "$root/scripts/setup.sh" && cargo build --quiet --manifest-path "$root/Cargo.toml" --release -p ardb-server ||
            die "the server cannot be built"
    fi
    [ -x "$ardb" ] || die "no server at $ardb"
}

work=$(mktemp -d "${TMPDIR:-/tmp}/ardb-$(basename "$0" .sh)-XXXXXX")
pids=()
# Ends what was started; the folder stays if the script failed.
finish() {
    local status=$? pid
    for pid in "${pids[@]}"; do kill -9 "$pid" 2>/dev/null; done
    wait 2>/dev/null
    if [ $status = 0 ]; then rm -rf "$work"; else echo "the servers' folders are in $work" >&2; fi
    exit $status
}
trap finish EXIT
trap 'exit 130' INT TERM

# A free port below those that the kernel hands to outgoing connections.
free_port() {
    local port
    while port=$((12000 + RANDOM % 18000)); do
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
    done
}

# start PROGRAM PORT DIR [--directive value ...]: starts a server, waits until it has loaded its data, sets $started to its
# process id.
start() {
    local program=$1 port=$2 dir=$3
    shift 3
    mkdir -p "$dir"
    "$program" --port "$port" --dir "$dir" --bind 127.0.0.1 --save "" "$@" >>"$dir/server.log" 2>&1 &
    started=$!
    pids+=("$started")
    disown "$started"
    local tries
    for tries in $(seq 1500); do
        case $("$bin/redis-cli" -p "$port" PING 2>/dev/null) in PONG | NOAUTH*) return 0 ;; esac
        kill -0 "$started" 2>/dev/null || { tail -n 20 "$dir/server.log" >&2; die "$(basename "$program") ended"; }
        sleep 0.02
    done
    tail -n 20 "$dir/server.log" >&2
    die "$(basename "$program") does not answer"
}

# own DIRECTIVE VALUE...: directives that only the server under test knows; nothing where a Redis stands in.
own() { stands_in || printf '%s\n' "$@"; }
