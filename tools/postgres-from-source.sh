#!/bin/sh
# Builds a PostgreSQL from Debian's source package, contrib included, and prints where its pg_config is. Debian 12 itself has
# 15 only. Safe to repeat: does nothing when it is there.
#
#   tools/postgres-from-source.sh 17
#
#   POSTGRESQL_DIR    where it goes (default: target/postgresql/17)
#   POSTGRES_SOURCE   a directory with that version's source; then none is fetched

set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
major=${1:-}
prefix=${POSTGRESQL_DIR:-${CARGO_TARGET_DIR:-$root/target}/postgresql/$major}

say() { printf 'postgres-from-source: %s\n' "$*" >&2; }
die() { printf 'postgres-from-source: error: %s\n' "$*" >&2; exit 1; }

case $major in
    17 | 18) ;;
    *) die "which major version? 17 or 18" ;;
esac
if [ -x "$prefix/bin/pg_config" ]; then
    echo "$prefix/bin/pg_config"
    exit 0
fi

"$root/tools/setup.sh" source >&2
# shellcheck source=tools/postgres-source.sh
. "$root/tools/postgres-source.sh"

work=$prefix.build
mkdir -p "$work"
if [ -n "${POSTGRES_SOURCE:-}" ]; then
    cp -R "$POSTGRES_SOURCE" "$work/source"
elif [ ! -d "$work/source" ]; then
    archive=$(source_archive "$work/apt" "$major") ||
        die "PostgreSQL $major's source could not be fetched from suite $(source_suite "$major"); give it in POSTGRES_SOURCE"
    mkdir -p "$work/source.new"
    tar -xf "$archive" -C "$work/source.new" --strip-components=1
    mv "$work/source.new" "$work/source"
fi

say "building PostgreSQL $major into $prefix; output in $work/log"
cd "$work/source"
{
    ./configure --prefix="$prefix" --with-icu --with-openssl --with-lz4 --with-zstd --with-libxml &&
        make -j "$(nproc)" world-bin && make install-world-bin
} > "$work/log" 2>&1 || die "it could not be built; see the end of $work/log"
rm -rf "$work"
echo "$prefix/bin/pg_config"
