#!/bin/sh
# Runs the regression suites of PostgreSQL's contrib modules against a plain server and against one node of a group of three, and
# compares what they print. Fails when a file differs that tests/regress/contrib/differences.txt does not list, when one that is
# listed no longer does, or when a module leaves the group in disorder: a node out of service, nodes that are not equal.
# docs/compatibility.md gives the reasons.
#
#   tools/contrib-postgres.sh [MODULE...]     all modules that can run in a server that is there, or these
#
#   PG_CONFIG         the pg_config of the PostgreSQL with the extension and with contrib's modules (default: Debian's PostgreSQL 15);
#                     modules for PL/Perl and PL/Python run where these are installed: tools/setup.sh contrib
#   GCS               the daemon's program (default: $CARGO_TARGET_DIR/release/gcs)
#   POSTGRES_SOURCE   PostgreSQL's source; without it, Debian's source package is fetched, into OUT
#   OUT               where output goes (default: target/contrib-postgres), as with tools/regress-postgres.sh; left-out.txt, the
#                     modules that are not run, and why
#
# A file is named by its module and its own name: hstore.hstore_utf8. Each module begins with a database of its own, replicated by all
# nodes, as pg_regress makes a database for each; it is compared, no longer replicated and dropped when the module is through.
# Everything runs on loopback, under a scratch directory, and ends with this program.

set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
name=contrib-postgres
OUT=${OUT:-$root/target/contrib-postgres}
DATABASE=contrib_regression
LIST=tests/regress/contrib/differences.txt
# dblink and postgres_fdw connect to their own server where libpq looks for it.
SOCKETS=/var/run/postgresql
. "$root/tools/regress-suite.sh"
shared=$("$PG_CONFIG" --sharedir)/extension

# What a module's Makefile says, as make reads it; also where make runs this.
variable() { # module, variable
    env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL make -s --no-print-directory -C "$source/contrib/$1" USE_PGXS=1 PG_CONFIG="$PG_CONFIG" --eval "print-variable:;@echo \$($2)" print-variable 2> /dev/null
}

# Prints nothing for a module that can run.
why_left_out() { # module
    [ -z "$(variable "$1" NO_INSTALLCHECK)" ] || { echo "it asks for a server with settings of its own"; return; }
    case $1 in
        *_plperl) [ -e "$shared/plperl.control" ] || echo "PL/Perl is not installed" ;;
        *_plpython) [ -e "$shared/plpython3u.control" ] || echo "PL/Python is not installed" ;;
    esac
}

# The module's directory with its files under their names here.
take_module() { # module
    mkdir -p "$work/suite"
    cp -r "$source/contrib/$1" "$work/suite/$1"
    for file in "$work/suite/$1/sql"/*.sql "$work/suite/$1/expected"/*.out; do
        mv "$file" "$(dirname "$file")/$1.$(basename "$file")"
    done
}

source_of() { # file
    echo "$work/suite/${1%%.*}/sql/$1.sql"
}

# The database of the module before is given up, on all servers, and made anew.
renew_database() {
    query "$plain_port" postgres "DROP DATABASE $DATABASE WITH (FORCE)"
    query "$plain_port" postgres "CREATE DATABASE $DATABASE TEMPLATE template0"
    for port in "$base_port" $((base_port + 1)) $((base_port + 2)); do
        query "$port" postgres "ALTER DATABASE $DATABASE STOP REPLICATION" 2>> "$OUT/logs/replication"
    done
    for port in "$base_port" $((base_port + 1)) $((base_port + 2)); do
        query "$port" postgres "DROP DATABASE $DATABASE WITH (FORCE)"
        query "$port" postgres "CREATE DATABASE $DATABASE TEMPLATE template0"
        query "$port" "$DATABASE" "CREATE EXTENSION postgres_r"
        query "$port" postgres "ALTER DATABASE $DATABASE START REPLICATION IN GROUP postgresr" 2>> "$OUT/logs/replication"
    done
}

prepare_module() { # module
    [ -z "$used" ] || renew_database
    used=yes
    for port in "$plain_port" "$base_port" $((base_port + 1)) $((base_port + 2)); do prepare_database "$port"; done
    for option in $(variable "$1" REGRESS_OPTS); do
        case $option in
            --load-extension=*)
                for port in "$plain_port" "$base_port"; do
                    query "$port" "$DATABASE" "CREATE EXTENSION ${option#*=}"
                done ;;
        esac
    done
    take_module "$1"
    chmod -R a+rX "$work/suite/$1"
}

find_source contrib src/test/regress
[ $# -gt 0 ] || set -- $(cd "$source/contrib" && ls -d ./*/ | tr -d ./)
prepare_output
: > "$OUT/left-out.txt"
modules= count=0
for module; do
    files=$(variable "$module" REGRESS)
    [ -n "$files" ] || continue
    why=$(why_left_out "$module")
    if [ -n "$why" ]; then
        printf '%-20s %s files: %s\n' "$module" "$(echo "$files" | wc -w)" "$why" >> "$OUT/left-out.txt"
        continue
    fi
    modules="$modules $module"
done

[ -n "$modules" ] || die "there is no module that can run, see $OUT/left-out.txt"
[ -d "$SOCKETS" ] || die "there is no directory $SOCKETS; Debian's package postgresql-common has it"
start_regress_servers
build_library
chmod -R a+rX "$work/lib"
failures=0 used= all=
for module in $modules; do
    files=$(for file in $(variable "$module" REGRESS); do echo "$module.$file"; done)
    prepare_module "$module"
    run_on_both "$work/suite/$module" $files
    compare_nodes "$module"
    all="$all $files"
done
keep_logs
compare_files source_of $all
say "left out: $(wc -l < "$OUT/left-out.txt") modules, see $OUT/left-out.txt"
[ "$failures" -eq 0 ] || die "$failures results are not as listed in $LIST"
say "all files of $(echo "$modules" | wc -w) modules are as listed, all nodes equal"
