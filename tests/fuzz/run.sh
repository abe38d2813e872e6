#!/bin/sh
# Fuzzes every target for some seconds. Usage: run.sh SECONDS
set -eu
cd "$(dirname "$0")"
if ! cargo fuzz --version > /dev/null 2>&1; then
    echo "cargo-fuzz is missing: cargo install cargo-fuzz --locked" >&2
    exit 1
fi
# The sanitizers are nightly features; this lets a stable compiler use them.
export RUSTC_BOOTSTRAP=1
for target in requests replies inline; do
    mkdir -p "corpus/$target"
    cargo fuzz run --fuzz-dir . "$target" -- -max_total_time="$1" -max_len=4096 -print_final_stats=1
done
