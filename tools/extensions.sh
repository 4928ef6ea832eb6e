#!/bin/sh
# Makes pgvector and PostGIS in a replicated database, tables with their types and indexes, writes to them on three nodes at once, and fails unless all
# nodes hold the same and give the same answers by their indexes. PostGIS is Debian's (postgresql-15-postgis-3); pgvector, which Debian 12 does not have
# for PostgreSQL 15, is built from the source package of the next release.
#
#   tools/extensions.sh
#
#   PG_CONFIG, GCS, OUT   as for tools/regress-postgres.sh; as root, what is missing is installed

set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
name=extensions
OUT=${OUT:-$root/target/extensions}
DATABASE=shop
. "$root/tools/postgres-suite.sh"
shared=$("$PG_CONFIG" --sharedir)/extension

install_pgvector() {
    scratch=$OUT/apt
    mkdir -p "$scratch/lists/partial" "$scratch/cache/archives/partial" "$scratch/parts"
    mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.sources 2> /dev/null | sed -n 's/^URIs: *\([^ ]*\).*/\1/p; s/^deb \([^ []*\) .*/\1/p' | head -1)
    [ -n "$mirror" ] || die "no mirror of Debian in apt's configuration; install pgvector for this PostgreSQL"
    printf 'Types: deb-src\nURIs: %s\nSuites: trixie\nComponents: main\nSigned-By: %s\n' "$mirror" \
        /usr/share/keyrings/debian-archive-keyring.gpg > "$scratch/parts/next.sources"
    set -- -qq -o Dir::Etc::SourceList=/dev/null -o "Dir::Etc::SourceParts=$scratch/parts" -o "Dir::State::Lists=$scratch/lists" \
        -o "Dir::Cache=$scratch/cache" -o APT::Sandbox::User=root
    apt-get "$@" update
    (cd "$scratch" && apt-get "$@" source --download-only pgvector && mkdir -p source &&
        tar -xf pgvector_*.orig.tar.* -C source --strip-components=1)
    # For whatever processor the servers run on.
    make -C "$scratch/source" PG_CONFIG="$PG_CONFIG" OPTFLAGS= install > "$OUT/pgvector.log" 2>&1 || die "pgvector could not be built, see $OUT/pgvector.log"
}

mkdir -p "$OUT"
[ -e "$shared/postgis.control" ] || apt-get install -y -qq postgresql-15-postgis-3 > "$OUT/postgis.log" 2>&1 || die "PostGIS could not be installed, see $OUT/postgis.log"
[ -e "$shared/vector.control" ] || install_pgvector

write() { # port, number
    "$bin/psql" -h 127.0.0.1 -p "$1" -U postgres -d "$DATABASE" -qX -v ON_ERROR_STOP=1 > "$OUT/node$2.log" 2>&1 <<END || touch "$OUT/failed$2"
SELECT format('INSERT INTO item (v, h) SELECT ARRAY[random(), random(), random()]::vector, ARRAY[random(), random()]::halfvec FROM generate_series(1, 50)'),
       format('INSERT INTO place (at, area) SELECT ST_SetSRID(ST_MakePoint(random() * 10, random() * 10), 4326),
               ST_Buffer(ST_MakePoint(random() * 100, random() * 100), 1) FROM generate_series(1, 20)'),
       format('UPDATE item SET v = (v + ARRAY[1, 1, 1]::vector) WHERE id %% 3 = $2 - 1 AND id IN (SELECT id FROM item WHERE id %% 3 = $2 - 1 ORDER BY id DESC LIMIT 5)')
FROM generate_series(1, 20) \gexec
END
}

start_servers ""
query "$base_port" "$DATABASE" "CREATE EXTENSION vector"
query "$base_port" "$DATABASE" "SELECT FROM postgres_r.verify()" > /dev/null
query $((base_port + 1)) "$DATABASE" "CREATE EXTENSION postgis" 2> /dev/null
query $((base_port + 1)) "$DATABASE" "
    CREATE TABLE item (id bigserial PRIMARY KEY, v vector(3), h halfvec(2));
    CREATE INDEX item_hnsw ON item USING hnsw (v vector_l2_ops); CREATE INDEX item_ivf ON item USING ivfflat (h halfvec_l2_ops) WITH (lists = 5);
    CREATE TABLE place (id bigserial PRIMARY KEY, at geography(Point, 4326), area geometry);
    CREATE INDEX place_at ON place USING gist (at); CREATE INDEX place_area ON place USING gist (area);" 2> /dev/null
# It looks at all nodes at one position, and so waits until they are there.
query $((base_port + 1)) "$DATABASE" "SELECT FROM postgres_r.verify()" > /dev/null
rm -f "$OUT"/failed*
say "writing on three nodes at once"
for number in 1 2 3; do write $((base_port + number - 1)) "$number" & done
wait
for number in 1 2 3; do [ ! -e "$OUT/failed$number" ] || die "node $number: see $OUT/node$number.log"; done
different=$("$bin/psql" -h 127.0.0.1 -p "$base_port" -U postgres -d "$DATABASE" -qAtX -c "SELECT count(*) FROM postgres_r.verify() WHERE verdict <> 'equal'")
[ "$different" = 0 ] || die "postgres_r.verify() finds $different differences"
for number in 1 2 3; do
    "$bin/psql" -h 127.0.0.1 -p $((base_port + number - 1)) -U postgres -d "$DATABASE" -qAtX > "$OUT/answers$number" <<END
SET postgres_r.read_level = strong; SET enable_seqscan = off;
SELECT count(*), sum(id) FROM item;
SELECT id FROM item ORDER BY v <-> '[1,1,1]' LIMIT 1;
SELECT count(*), sum(id) FROM place WHERE ST_DWithin(at, 'POINT(5 5)'::geography, 300000);
SELECT count(*), sum(id) FROM place WHERE area && ST_MakeEnvelope(20, 20, 60, 60);
SELECT count(*) FROM spatial_ref_sys;
END
done
cmp -s "$OUT/answers1" "$OUT/answers2" && cmp -s "$OUT/answers1" "$OUT/answers3" || die "the nodes give other answers, see $OUT/answers1 to 3"
say "vectors, geometries and geographies: $(head -1 "$OUT/answers1") items, all nodes equal"
