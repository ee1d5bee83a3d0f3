#!/usr/bin/env bash
# Installs what the build needs, builds the server in release, and starts it.
#
#   scripts/start.sh [FILE] [--directive value ...]     the arguments of ardb-server
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
"$root/scripts/setup.sh"
cargo build --manifest-path "$root/Cargo.toml" --release --locked -p ardb-server
exec "${CARGO_TARGET_DIR:-$root/target}/release/ardb-server" "$@"
