#!/bin/sh
# Runs PostgreSQL's own regression suite (src/test/regress) against a plain server and against one node of a group of three, and
# compares what they print. Fails when a file differs that tests/regress/postgres/differences.txt does not list, when one that is
# listed no longer does, or when the group ends in disorder: a node out of service, nodes that are not equal. docs/compatibility.md
# gives the reasons. At the end a dump of the plain server's database is restored, by pg_restore in four sessions, into another database of
# the plain server and into a replicated one, with the same errors, if any, and the same on every node.
#
#   tools/regress-postgres.sh [FILE...]     all files, in the order of parallel_schedule, or these and those that all need
#
#   PG_CONFIG         the pg_config of the PostgreSQL with the extension (default: Debian's PostgreSQL 15)
#   GCS               the daemon's program (default: $CARGO_TARGET_DIR/release/gcs)
#   POSTGRES_SOURCE   PostgreSQL's source; without it, Debian's source package is fetched, into OUT
#   IF_SOURCE_IS_THERE   if set: nothing is run, and nothing has failed, where it cannot be fetched
#   OUT               where output goes (default: target/regress-postgres): plain/, group/ and diff/, by file; dump/ and logs/, by
#                     node; first.txt, the first statement of each file that differs; reasons.txt, lines for differences.txt;
#                     summary.txt, what is refused, counted
#
# One file runs after the other: a file that hangs is cut off after FILE_SECONDS_MAX, here and there, and its sessions are ended.
# Everything runs on loopback, under a scratch directory, and ends with this program.

set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
name=regress-postgres
OUT=${OUT:-$root/target/regress-postgres}
DATABASE=regression
LIST=tests/regress/postgres/differences.txt
. "$root/tools/regress-suite.sh"
[ ! -e "$root/${LIST%.txt}-$major.txt" ] || LIST=${LIST%.txt}-$major.txt

# Counts in `failures`.
restore_dump() {
    "$bin/pg_dump" -h 127.0.0.1 -p "$plain_port" -U postgres -Fc -f "$work/dump" $DATABASE
    query "$plain_port" postgres "CREATE DATABASE restored TEMPLATE template0"
    for port in "$base_port" $((base_port + 1)) $((base_port + 2)); do
        query "$port" postgres "CREATE DATABASE restored TEMPLATE template0"
        query "$port" restored "CREATE EXTENSION postgres_r"
        query "$port" postgres "ALTER DATABASE restored START REPLICATION IN GROUP postgresr" 2>> "$OUT/logs/replication"
    done
    for where in plain group; do
        port=$plain_port
        [ $where = plain ] || port=$base_port
        "$bin/pg_restore" -h 127.0.0.1 -p "$port" -U postgres -d restored -j 4 "$work/dump" > "$OUT/$where.restored" 2>&1 || true
        grep 'error:' "$OUT/$where.restored" | sort > "$OUT/$where.restored.errors" || true
    done
    diff "$OUT/plain.restored.errors" "$OUT/group.restored.errors" > "$OUT/diff/restored" || {
        say "pg_restore -j 4 says something else on the group, see $OUT/diff/restored"
        failures=$((failures + 1))
    }
    query "$base_port" restored "SELECT * FROM postgres_r.verify() WHERE verdict <> 'equal'" > "$OUT/verify.restored" 2>&1 || true
    grep -q '^(0 rows)' "$OUT/verify.restored" || {
        say "what was restored differs between nodes, see $OUT/verify.restored"
        failures=$((failures + 1))
    }
}

find_source src/test/regress
suite=$source/src/test/regress
all=$(sed -n 's/^test: *//p' "$suite/parallel_schedule")
if [ $# -gt 0 ]; then set -- test_setup create_index "$@"; else set -- $all; fi
source_of() { echo "$work/suite/sql/$1.sql"; }

prepare_output
start_regress_servers
cp -r "$suite" "$work/suite"
build_library
# Modules of contrib that the suite's tests call, from the same path on all servers.
for module in autoinc refint; do
    cp "$("$PG_CONFIG" --pkglibdir)/$module.so" "$work/lib/"
done
chmod -R a+rX "$work/suite" "$work/lib"
for port in "$plain_port" "$base_port" $((base_port + 1)) $((base_port + 2)); do prepare_database "$port"; done

say "running $# files on both"
failures=0
run_on_both "$work/suite" "$@"
compare_nodes suite
keep_logs
compare_files source_of "$@"
restore_dump
[ "$failures" -eq 0 ] || die "$failures results are not as listed in $LIST"
say "all $# files are as listed, all nodes equal"
