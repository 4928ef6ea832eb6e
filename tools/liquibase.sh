#!/bin/sh
# Runs Liquibase with one changelog of 15 change sets, schema and data, against the three nodes of a group at once, and fails unless each instance ends
# well and all nodes are equal. Liquibase comes from npm's package of that name, in the version below; Java must be there (Debian: default-jre-headless).
#
#   tools/liquibase.sh
#
#   PG_CONFIG, GCS, OUT   as for tools/regress-postgres.sh; output goes to target/liquibase: one log for each node

set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
name=liquibase
OUT=${OUT:-$root/target/liquibase}
DATABASE=shop
VERSION=4.28.1
. "$root/tools/postgres-suite.sh"

command -v java > /dev/null || die "there is no java; Debian's package default-jre-headless has it"
command -v npm > /dev/null || die "there is no npm; Debian's package npm has it"

find_liquibase() {
    programs=$OUT/package/dist/liquibase/internal/lib
    mkdir -p "$OUT"
    [ -d "$programs" ] || (cd "$OUT" && npm pack --silent "liquibase@$VERSION" > /dev/null && tar -xzf "liquibase-$VERSION.tgz")
    [ -d "$programs" ] || die "npm's liquibase $VERSION has no $programs"
}

# By turns: columns with an index; rows that change, and a table that refers to them; more rows.
changelog() {
    echo '--liquibase formatted sql'
    echo '--changeset team:1'
    echo 'CREATE TABLE person (id serial PRIMARY KEY, name text NOT NULL);'
    for n in 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
        echo "--changeset team:$n"
        case $((n % 3)) in
        0) echo "INSERT INTO person (name) SELECT 'p$n-' || g FROM generate_series(1, 100) g;" ;;
        1) echo "ALTER TABLE person ADD COLUMN c$n int NOT NULL DEFAULT $n;"
           echo "CREATE INDEX person_c$n ON person (c$n);" ;;
        2) echo "UPDATE person SET name = name || '.$n';"
           echo "CREATE TABLE t$n (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, p int REFERENCES person, at timestamptz DEFAULT now());"
           echo "INSERT INTO t$n (p) SELECT id FROM person;" ;;
        esac
    done
}

update() { # port, number
    (cd "$OUT" && java -cp "$(printf '%s:' "$programs"/*.jar)" liquibase.integration.commandline.LiquibaseCommandLine \
        --changelog-file=changelog.sql --url="jdbc:postgresql://127.0.0.1:$1/$DATABASE" --username=postgres --password=none update) \
        > "$OUT/node$2.log" 2>&1 || touch "$OUT/failed$2"
}

find_liquibase
start_servers ""
changelog > "$OUT/changelog.sql"
rm -f "$OUT"/failed*
say "three instances at once"
for number in 1 2 3; do update $((base_port + number - 1)) "$number" & done
wait
for number in 1 2 3; do [ ! -e "$OUT/failed$number" ] || die "the instance on node $number has failed, see $OUT/node$number.log"; done
for number in 1 2 3; do
    applied=$("$bin/psql" -h 127.0.0.1 -p $((base_port + number - 1)) -U postgres -d "$DATABASE" -qAtX -c "SET postgres_r.read_level = strong; SELECT count(*) FROM databasechangelog")
    [ "$applied" = 15 ] || die "node $number has $applied of 15 change sets"
done
different=$("$bin/psql" -h 127.0.0.1 -p "$base_port" -U postgres -d "$DATABASE" -qAtX -c "SELECT count(*) FROM postgres_r.verify() WHERE verdict <> 'equal'")
[ "$different" = 0 ] || die "postgres_r.verify() finds $different differences"
say "15 change sets, each once; all nodes equal"
