# shellcheck shell=sh
# What the programs that run PostgreSQL's own suites share: PostgreSQL's source, a plain server, a group of three. They source this
# file after they have set:
#
#   name              their own, for messages and for the scratch directory
#   root              the project's directory
#   OUT               where output goes
#   DATABASE          the database that the suite is run in
#   SOCKETS           also a directory for the servers' sockets, if a suite looks for them at the usual place
#
# PG_CONFIG, GCS and POSTGRES_SOURCE are as those programs describe them.

PG_CONFIG=${PG_CONFIG:-/usr/lib/postgresql/15/bin/pg_config}
GCS=${GCS:-${CARGO_TARGET_DIR:-$root/target}/release/gcs}
export PG_CONFIG
bin=$("$PG_CONFIG" --bindir)
major=$("$PG_CONFIG" --version | sed 's/^PostgreSQL \([0-9]*\).*/\1/')
# shellcheck source=tools/postgres-source.sh
. "$root/tools/postgres-source.sh"

say() { printf '%s: %s\n' "$name" "$*"; }
die() { printf '%s: error: %s\n' "$name" "$*" >&2; exit 1; }

# A program of pgxs's, by its path below src/test, from the package postgresql-server-dev-15.
suite_program() {
    program=$(dirname "$("$PG_CONFIG" --pgxs)")/../test/$1
    [ -x "$program" ] || program=/usr/lib/postgresql/15/lib/pgxs/src/test/$1
    [ -x "$program" ] || die "there is no $(basename "$1"); Debian's package postgresql-server-dev-15 has it"
    echo "$program"
}

# Where the suite is one test of many, it is left out if PostgreSQL's source cannot be had, and says so.
no_source() {
    [ -n "${IF_SOURCE_IS_THERE:-}" ] || die "$@"
    say "left out: $*"
    exit 0
}

# Only these directories of the source.
fetch_source() { # directories of the source
    archive=$(source_archive "$OUT/apt" "$major") ||
        no_source "PostgreSQL $major's source could not be fetched; give it in POSTGRES_SOURCE"
    mkdir -p "$OUT/source"
    for directory; do
        tar -xf "$archive" -C "$OUT/source" --strip-components=1 --wildcards "*/$directory/*"
    done
}

# Sets `source`, PostgreSQL's source as far as these directories.
find_source() { # directories of the source
    mkdir -p "$OUT"
    if [ -z "${POSTGRES_SOURCE:-}" ]; then
        for directory; do
            [ -d "$OUT/source/$directory" ] || { fetch_source "$@"; break; }
        done
        POSTGRES_SOURCE=$OUT/source
    fi
    source=$POSTGRES_SOURCE
    for directory; do
        [ -d "$source/$directory" ] || die "there is no $source/$directory"
    done
}

query() { "$bin/psql" -h 127.0.0.1 -p "$1" -U postgres -d "$2" -qX -v ON_ERROR_STOP=1 -c "$3"; }

# PostgreSQL does not run as root.
as_server() { if [ "$(id -u)" -eq 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi; }

stop_all() {
    mkdir -p "$OUT/logs"
    for node in node1 node2 node3; do
        cp "$work/group/$node/postgres.log" "$OUT/logs/$node.log" 2> /dev/null || true
    done
    cp "$work/plain.log" "$OUT/logs/plain.log" 2> /dev/null || true
    "$GCS" playground stop --dir "$work/group" > /dev/null 2>&1 || true
    as_server "$bin/pg_ctl" -D "$work/plain" -m fast -w stop > /dev/null 2>&1 || true
    rm -rf "${work:?}"
}

# Sets `work`, `plain_port` and `base_port`, the port of node 1; those of nodes 2 and 3 come after it.
start_servers() { # lines for the plain server's configuration
    [ -x "$GCS" ] || die "there is no $GCS; run 'make install' first"
    work=$(mktemp -d "/tmp/$name.XXXXXX")
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
unix_socket_directories = '$work${SOCKETS:+, $SOCKETS}'
timezone = 'UTC'
fsync = off
max_prepared_transactions = 10
$1
END
    as_server "$bin/pg_ctl" -D "$work/plain" -l "$work/plain.log" -w start > /dev/null
    query "$plain_port" postgres "CREATE DATABASE $DATABASE"
    set -- --dir "$work/group" --base-port "$base_port" --database "$DATABASE"
    "$GCS" playground start "$@" --detach > /dev/null
    for port in "$base_port" $((base_port + 1)) $((base_port + 2)); do
        query "$port" postgres "ALTER SYSTEM SET max_prepared_transactions = 10"
        [ -z "${SOCKETS:-}" ] ||
            query "$port" postgres "ALTER SYSTEM SET unix_socket_directories = '$work/group/node$((port - base_port + 1))', '$SOCKETS'"
    done
    # It takes a restart.
    "$GCS" playground stop --dir "$work/group" > /dev/null
    "$GCS" playground start "$@" --detach > /dev/null
}
