#!/bin/sh
# Runs PostgreSQL's own isolation suite (src/test/isolation) against a plain server and against one node of a group of three, and
# compares what they print. Fails when a spec differs that tests/isolation/postgres/differences.txt does not list, or when one that is
# listed no longer does. docs/compatibility.md gives the reasons.
#
#   tools/isolation-postgres.sh [SPEC...]     all specs, or these
#
#   PG_CONFIG         the pg_config of the PostgreSQL with the extension (default: Debian's PostgreSQL 15)
#   GCS               the daemon's program (default: $CARGO_TARGET_DIR/release/gcs)
#   POSTGRES_SOURCE   PostgreSQL's source; without it, Debian's source package is fetched, into OUT
#   OUT               where output goes (default: target/isolation-postgres): plain/, group/ and diff/, by spec; logs/, by node
#
# Everything runs on loopback, under a scratch directory, and ends with this program.

set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
name=isolation-postgres
OUT=${OUT:-$root/target/isolation-postgres}
DATABASE=isolation_regression
STEP_SECONDS_MAX=60
SPEC_SECONDS_MAX=600
. "$root/tools/postgres-suite.sh"

# A refused PREPARE TRANSACTION leaves the session in a failed transaction, with which isolationtester can't go on to the next
# permutation: in the spec of statistics, where it is a side show, those permutations are left out.
adapt() { # spec
    sed -f "$root/tests/isolation/postgres/adapt.sed" "$suite/specs/$1.spec" | if [ "$1" = stats ]; then
        awk '/^permutation/ { flush(); held = 1 } /^[^ \t]/ && !/^permutation/ { flush() }
             { if (held) text = text $0 "\n"; else print }
             function flush() { if (text !~ /prepare/) printf "%s", text; text = ""; held = 0 }
             END { flush() }'
    else
        cat
    fi > "$OUT/specs/$1.spec"
}

run_specs() { # directory of outputs, port, specs
    out=$1 port=$2
    shift 2
    for spec; do
        PGISOLATIONTIMEOUT=$STEP_SECONDS_MAX PGDATESTYLE='Postgres, MDY' PGTZ=PST8PDT PGAPPNAME=isolation/$spec \
            timeout "$SPEC_SECONDS_MAX" "$tester" "host=127.0.0.1 port=$port user=postgres dbname=$DATABASE" \
            < "$OUT/specs/$spec.spec" > "$out/$spec.out" 2>&1 || printf 'ended with status %s\n' $? >> "$out/$spec.out"
    done
}

tester=${ISOLATIONTESTER:-$(suite_program isolation/isolationtester)}
find_source src/test/isolation
suite=$source/src/test/isolation
[ $# -gt 0 ] || set -- $(cd "$suite/specs" && ls ./*.spec | sed 's|^\./||; s|\.spec$||')

rm -rf "$OUT/specs" "$OUT/plain" "$OUT/group" "$OUT/diff"
mkdir -p "$OUT/specs" "$OUT/plain" "$OUT/group" "$OUT/diff"
for spec; do
    adapt "$spec"
done

start_servers ""
# The tester sees who waits in pg_locks, where locks of the group are not.
for lock in table_locks advisory_locks row_locks; do
    query "$base_port" postgres "ALTER DATABASE $DATABASE SET postgres_r.$lock = 'local'"
done

say "running $# specs on both"
run_specs "$OUT/plain" "$plain_port" "$@" &
plain_run=$!
run_specs "$OUT/group" "$base_port" "$@"
wait $plain_run
# A node on which something could not be applied goes out of service.
for port in "$base_port" $((base_port + 1)) $((base_port + 2)); do
    query "$port" "$DATABASE" "DO \$\$ BEGIN ASSERT (SELECT state FROM postgres_r.members WHERE is_self) = 'online', 'not online'; END \$\$" ||
        die "the node on port $port is not online any more"
done

# Permutations of a spec in which the plain server reports more errors than the group does: the one place where the group could have
# let something through.
let_through() { # spec
    awk '/^starting permutation:/ { permutation = $0 }
         / ERROR:|^ERROR:/ { errors[FILENAME == ARGV[1], permutation]++; if (FILENAME == ARGV[1]) plain[permutation] }
         END { for (p in plain) if (errors[1, p] > errors[0, p]) print p }' "$OUT/plain/$1.out" "$OUT/group/$1.out"
}

failures=0
for spec; do
    listed=$(sed -n "s/^$spec[[:space:]][[:space:]]*//p" "$root/tests/isolation/postgres/differences.txt")
    if diff -U 3 "$OUT/plain/$spec.out" "$OUT/group/$spec.out" > "$OUT/diff/$spec.diff"; then
        rm "$OUT/diff/$spec.diff"
        case $listed in '' | timing*) ;; *) say "$spec: listed as different ($listed), but it is the same"
            failures=$((failures + 1))
        esac
    elif [ -n "$listed" ] && [ "${listed#refused}" = "$listed" ] && [ "${listed#timing}" = "$listed" ] && [ -n "$(let_through "$spec")" ]; then
        say "$spec: the plain server reports errors that the group does not, see $OUT/diff/$spec.diff"
        let_through "$spec"
        failures=$((failures + 1))
    elif [ -n "$listed" ]; then
        say "$spec: differs as listed: $listed"
    else
        say "$spec: DIFFERS, see $OUT/diff/$spec.diff"
        failures=$((failures + 1))
    fi
done
[ "$failures" -eq 0 ] || die "$failures specs are not as listed in tests/isolation/postgres/differences.txt"
say "all $# specs are as listed"
