#!/bin/sh
# Builds the end-to-end tests and runs their files, each of which has a group of its own, JOBS at a time. What a file prints
# is shown when it has ended. All of them are run, so that a run that fails names everything; status 1 then.
#
#   tools/e2e.sh [FILE...]     all e2e_* files, or these
#
#   JOBS   how many at a time (default: 1). With 2 on two processors the whole is done in about half the time, and a test that is wrong about time shows it

set -eu

root=$(cd "$(dirname "$0")/.." && pwd)

# A file, its tests one after the other, as cargo would run it.
one() { # executable
    test=$(basename "$1" | sed 's/-[0-9a-f]*$//')
    output=$(mktemp)
    began=$(date +%s)
    (cd "$root/tests" && CARGO_MANIFEST_DIR=$root/tests exec "$1" --test-threads=1) > "$output" 2>&1 || echo "$test" >> "$failed"
    printf '\n     %s, %s s\n' "$test" "$(($(date +%s) - began))"
    cat "$output"
    rm -f "$output"
}

if [ "${1:-}" = --one ]; then
    # What others print meanwhile comes after it.
    shown=$(one "$2")
    printf '%s\n' "$shown"
    exit 0
fi

[ $# -gt 0 ] || set -- 'e2e_*'
count=$#
for file; do set -- "$@" --test "$file"; done
shift "$count"
cd "$root"
cargo test --release --locked -p postgres_r_tests "$@" --no-run
executables=$(cargo test --release --locked -p postgres_r_tests "$@" --no-run 2>&1 | sed -n 's/^ *Executable .*(\(.*\))$/\1/p')
[ -n "$executables" ] || { echo 'e2e: error: cargo names no executables' >&2; exit 1; }
failed=$(mktemp)
export failed
trap 'rm -f "$failed"' EXIT
# Their paths are relative to the project where cargo's directory is.
printf '%s\n' "$executables" | sed "s|^[^/]|$root/&|" | xargs -P "${JOBS:-1}" -n 1 "$0" --one
if [ -s "$failed" ]; then
    printf '\ne2e: these failed: %s\n' "$(sort "$failed" | tr '\n' ' ')"
    exit 1
fi
