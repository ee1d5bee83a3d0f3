#!/usr/bin/env bash
# Compiles RocksDB once (about 15 minutes on two cores) into a cache outside the checkout, and links the checkout to it.
#
# The cache is keyed by the version of the binding's sys crate in Cargo.lock and by the options below. `.cargo/config.toml` points
# every cargo call at `.rocksdb`, the link that this script makes, so that debug, release and test builds share one library.
# A stamp written last tells a complete cache from an interrupted one; a lock lets several callers wait for one build.
#
#   ARDB_CACHE   where the cache goes (default: ~/.cache/ardb)
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache_root=${ARDB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ardb}

say() { printf 'rocksdb-cache: %s\n' "$*"; }
die() { printf 'rocksdb-cache: %s\n' "$*" >&2; exit 1; }

version=$(awk '/^name = "rust-librocksdb-sys"$/ { getline; gsub(/version = |"/, ""); print; exit }' "$root/Cargo.lock")
[ -n "$version" ] || die "Cargo.lock names no rust-librocksdb-sys"

# The compression libraries must be those of the workspace's rust-rocksdb features: their crates supply the code at link time.
features='"static", "lz4", "zstd"'
arch=$(uname -m)
cpu=""
# CRC32 and POPCNT instructions; every x86-64 server since 2009 has them. Elsewhere the compiler's default is right.
[ "$arch" = x86_64 ] && cpu=x86-64-v2

dir="$cache_root/rocksdb-$version-lz4-zstd-O2-${cpu:-$arch}"
stamp="$dir/complete"

link() {
    ln -sfn "$dir" "$root/.rocksdb"
}

if [ -e "$stamp" ]; then
    [ "$(readlink "$root/.rocksdb" 2>/dev/null || true)" = "$dir" ] || { link; say "using $dir"; }
    exit 0
fi

command -v cargo >/dev/null || die "cargo is missing: install Rust (https://rustup.rs)"
command -v g++ >/dev/null || command -v c++ >/dev/null || die "a C++ compiler is missing: run scripts/setup.sh"

mkdir -p "$dir"
exec 9>"$dir/lock"
if ! flock -n 9; then
    say "waiting for another build of the same cache"
    flock 9
    if [ -e "$stamp" ]; then link; say "using $dir"; exit 0; fi
fi

say "compiling RocksDB ($version) into $dir: about 15 minutes on two cores, once"
start=$(date +%s)
rm -rf "$dir/lib" "$dir/include"
mkdir -p "$dir/build/src"
cat > "$dir/build/Cargo.toml" <<TOML
[package]
name = "rocksdb-cache"
version = "0.0.0"
edition = "2021"

[workspace]

[dependencies]
rust-librocksdb-sys = { version = "=${version%%+*}", default-features = false, features = [$features] }

[profile.release]
opt-level = 2
debug = false
# The C++ compiler takes its level from the package that it is compiled for.
[profile.release.build-override]
opt-level = 0
TOML
# The workspace's lock file, so that the compression libraries have the versions that will be linked.
cp "$root/Cargo.lock" "$dir/build/Cargo.lock"
: > "$dir/build/src/lib.rs"

log="$dir/build.log"
# ROCKSDB_COMPILE: from source, whatever the environment says. No stripped-down environment: proxies and mirrors live there.
(
    cd "$dir/build"
    unset ROCKSDB_LIB_DIR ROCKSDB_STATIC ROCKSDB_INCLUDE_DIR CARGO_TARGET_DIR CARGO_BUILD_TARGET CARGO_BUILD_TARGET_DIR
    unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CFLAGS CXXFLAGS
    [ -z "$cpu" ] || export RUSTFLAGS="-Ctarget-cpu=$cpu"
    ROCKSDB_COMPILE=1 cargo build --release --target-dir target
) >"$log" 2>&1 &
build=$!
trap 'kill "$build" 2>/dev/null || true' INT TERM

# A line a minute, so that nobody takes a long compilation for a hanging one.
ticks=0
while kill -0 "$build" 2>/dev/null; do
    sleep 1
    ticks=$((ticks + 1))
    if [ $((ticks % 60)) = 0 ]; then
        objects=$(find "$dir/build/target" -path '*rust-librocksdb-sys*' -name '*.o' 2>/dev/null | wc -l)
        say "$((ticks / 60)) min, $objects files compiled"
    fi
done
if ! wait "$build"; then
    tail -n 40 "$log" >&2
    die "the build failed; the whole output is in $log"
fi

out=$(find "$dir/build/target/release/build" -path '*/rust-librocksdb-sys-*/out/librocksdb.a' -printf '%T@ %h\n' | sort -n | tail -1 | cut -d' ' -f2-)
[ -n "$out" ] || die "the build left no librocksdb.a; see $log"
# Not offline: a new machine has not fetched what other platforms need, and without the filter cargo asks for that too.
host=$(rustc -vV | sed -n 's/^host: //p')
(cd "$dir/build" && cargo metadata --format-version 1 --filter-platform "$host") >"$dir/build/metadata.json" 2>>"$log" \
    || { tail -n 20 "$log" >&2; die "cargo metadata failed; the whole output is in $log"; }
source_dir=$(grep -o '"manifest_path":"[^"]*rust-librocksdb-sys-[^"]*"' "$dir/build/metadata.json" | head -1 | sed 's/.*:"//; s/"$//; s,/Cargo.toml$,,' || true)
[ -d "$source_dir/rocksdb/include" ] || die "the headers are not where the sys crate keeps them: $source_dir"

mkdir -p "$dir/lib"
cp "$out/librocksdb.a" "$dir/lib/"
# In this mode the sys crate compiles its few extensions to the C interface itself; a second copy would clash.
for object in $(ar t "$dir/lib/librocksdb.a" | grep c_api_extensions || true); do
    ar d "$dir/lib/librocksdb.a" "$object"
done
strip --strip-debug "$dir/lib/librocksdb.a"
ranlib "$dir/lib/librocksdb.a"
cp -r "$source_dir/rocksdb/include" "$dir/include"
rm -rf "$dir/build"
date -u > "$stamp"
link
say "done after $(($(date +%s) - start)) s: $dir"
