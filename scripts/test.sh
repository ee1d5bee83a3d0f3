#!/usr/bin/env bash
# Runs every test of the project: form, layers, lints, licenses, unit tests, and the tests against real servers.
#
#   scripts/test.sh [FILTER...]     arguments go to cargo nextest, for instance a part of a test's name
#
# Installs what it needs on the way. The first run on a machine compiles RocksDB (about 15 minutes on two cores) and fetches
# the real servers; later runs find both in ${ARDB_CACHE:-~/.cache/ardb}. The slow tests are in scripts/exhaustive.sh.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
begin=$SECONDS
step() { printf '\n== %s (%d s)\n' "$*" $((SECONDS - begin)); }

# In continuous integration each checkout is new; the compiled dependencies outlive it here.
if [ -n "${CI:-}" ]; then
    export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-${ARDB_CACHE:-$HOME/.cache/ardb}/target}
    export CARGO_INCREMENTAL=0
fi
target=${CARGO_TARGET_DIR:-$root/target}

step "what the build needs"
scripts/setup.sh
tools=$(scripts/tools.sh) || echo "test: not every tool could be had"
eval "$tools"

step "the real servers"
scripts/peers.sh || echo "test: going on without them; the tests that need them will fail"

step "form"
cargo fmt --all --check

step "layers and form"
cargo xtask check

step "licenses, sources and versions of dependencies"
# A fetch beforehand, so that the check itself needs no network.
cargo fetch --quiet --locked
cargo deny --offline --log-level error check bans licenses sources

step "lints"
cargo clippy --quiet --workspace --all-targets --locked -- -D warnings

step "the server, in release"
cargo build --quiet --release --locked -p ardb-server

step "tests"
ARDB_SERVER=${ARDB_SERVER:-$target/release/ardb-server} \
    cargo nextest run --workspace --locked --no-fail-fast --status-level slow --final-status-level slow "$@"
cargo test --quiet --workspace --locked --doc

step "done"
