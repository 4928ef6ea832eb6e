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
PG_CONFIG=${PG_CONFIG:-/usr/lib/postgresql/15/bin/pg_config}
GCS=${GCS:-${CARGO_TARGET_DIR:-$root/target}/release/gcs}
OUT=${OUT:-$root/target/isolation-postgres}
DATABASE=isolation_regression
ROLES="regress_cluster_part regress_cluster_conflict regress_temp_grantee regress_truncate_conflict regress_vacuum_conflict"
STEP_SECONDS_MAX=60
SPEC_SECONDS_MAX=600
export PG_CONFIG

say() { printf 'isolation-postgres: %s\n' "$*"; }
die() { printf 'isolation-postgres: error: %s\n' "$*" >&2; exit 1; }

# The source package's archive, by a scratch configuration of apt: the machine's own stays as it is.
fetch_source() {
    scratch=$OUT/apt
    mkdir -p "$scratch/lists/partial" "$scratch/cache/archives/partial" "$scratch/parts"
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
        # Those that are of sources alone would be there twice.
        grep -qs -e '^Types:.*deb\( \|$\)' -e '^deb ' "$file" || continue
        sed -e 's/^Types:.*/Types: deb-src/' -e 's/^deb /deb-src /' "$file" > "$scratch/parts/$(basename "$file")"
    done
    set -- -qq -o Dir::Etc::SourceList=/dev/null -o "Dir::Etc::SourceParts=$scratch/parts" \
        -o "Dir::State::Lists=$scratch/lists" -o "Dir::Cache=$scratch/cache" -o APT::Sandbox::User=root
    apt-get "$@" update || die "apt-get update failed; give PostgreSQL's source in POSTGRES_SOURCE"
    # The newest that the mirror has: any 15 will do.
    for version in $(apt-cache "$@" showsrc --only-source postgresql-15 | sed -n 's/^Version: //p' | sort -Vru); do
        (cd "$scratch" && apt-get "$@" source --download-only "postgresql-15=$version") && break
        rm -f "$scratch"/postgresql-15_*
    done
    [ -n "$(ls "$scratch"/postgresql-15_*.orig.tar.* 2>/dev/null)" ] || die "apt-get source postgresql-15 failed"
    mkdir -p "$OUT/source"
    tar -xf "$scratch"/postgresql-15_*.orig.tar.* -C "$OUT/source" --strip-components=1 --wildcards '*/src/test/isolation/*'
}

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

query() { "$bin/psql" -h 127.0.0.1 -p "$1" -U postgres -d "$2" -qX -v ON_ERROR_STOP=1 -c "$3"; }

# PostgreSQL does not run as root.
as_server() { if [ "$(id -u)" -eq 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi; }

stop_all() {
    for node in node1 node2 node3; do
        mkdir -p "$OUT/logs"
        cp "$work/group/$node/postgres.log" "$OUT/logs/$node.log" 2> /dev/null || true
    done
    "$GCS" playground stop --dir "$work/group" > /dev/null 2>&1 || true
    as_server "$bin/pg_ctl" -D "$work/plain" -m fast -w stop > /dev/null 2>&1 || true
    rm -rf "${work:?}"
}

bin=$("$PG_CONFIG" --bindir)
tester=${ISOLATIONTESTER:-$(dirname "$("$PG_CONFIG" --pgxs)")/../test/isolation/isolationtester}
[ -x "$tester" ] || tester=/usr/lib/postgresql/15/lib/pgxs/src/test/isolation/isolationtester
[ -x "$tester" ] || die "there is no isolationtester; Debian's package postgresql-server-dev-15 has it"
[ -x "$GCS" ] || die "there is no $GCS; run 'make install' first"

mkdir -p "$OUT"
if [ -z "${POSTGRES_SOURCE:-}" ]; then
    [ -d "$OUT/source/src/test/isolation/specs" ] || fetch_source
    POSTGRES_SOURCE=$OUT/source
fi
suite=$POSTGRES_SOURCE/src/test/isolation
[ -d "$suite/specs" ] || die "there is no $suite/specs"
[ $# -gt 0 ] || set -- $(cd "$suite/specs" && ls ./*.spec | sed 's|^\./||; s|\.spec$||')

rm -rf "$OUT/specs" "$OUT/plain" "$OUT/group" "$OUT/diff"
mkdir -p "$OUT/specs" "$OUT/plain" "$OUT/group" "$OUT/diff"
for spec; do
    adapt "$spec"
done

work=$(mktemp -d /tmp/isolation-postgres.XXXXXX)
trap stop_all EXIT
trap 'exit 1' INT TERM
[ "$(id -u)" -ne 0 ] || chown postgres "$work"
base_port=$((20000 + $$ % 5000 * 2))
plain_port=$((base_port + 50))

say "starting a plain server and a group of three"
as_server "$bin/initdb" -D "$work/plain" -U postgres -A trust -E UTF8 --locale=C.UTF-8 --no-sync > /dev/null
cat >> "$work/plain/postgresql.conf" <<END
listen_addresses = '127.0.0.1'
port = $plain_port
unix_socket_directories = '$work'
timezone = 'UTC'
fsync = off
max_prepared_transactions = 10
END
as_server "$bin/pg_ctl" -D "$work/plain" -l "$work/plain.log" -w start > /dev/null
query "$plain_port" postgres "CREATE DATABASE $DATABASE"
"$GCS" playground start --dir "$work/group" --base-port "$base_port" --database "$DATABASE" --detach > /dev/null
for port in "$plain_port" "$base_port" $((base_port + 1)) $((base_port + 2)); do
    for role in $ROLES; do query "$port" postgres "CREATE ROLE $role"; done
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
        [ -z "$listed" ] || { say "$spec: listed as different ($listed), but it is the same"; failures=$((failures + 1)); }
    elif [ -n "$listed" ] && [ "${listed#refused}" = "$listed" ] && [ -n "$(let_through "$spec")" ]; then
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
