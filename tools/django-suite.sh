#!/bin/sh
# Runs Django's own test suite, as far as it is about databases, against a plain server and against one node of a group of three, with two
# replicated databases, and compares test by test. Fails when a test fails on the group and not on the plain server, when the nodes are not
# equal afterwards, or when one is out of service.
#
#   tools/django-suite.sh [LABEL...]     these parts of the suite, or those that docs/compatibility.md names
#
#   PG_CONFIG, GCS, OUT   as for tools/regress-postgres.sh; output goes to target/django-suite: plain.log and group.log, worse.txt
#
# Django's tests come with its source package, from PyPI, in the version that tests/django/requirements.txt names.

set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
name=django-suite
OUT=${OUT:-$root/target/django-suite}
DATABASE=django_default
OTHER=django_other
. "$root/tools/postgres-suite.sh"

python=${CARGO_TARGET_DIR:-$root/target}/django/bin/python
[ -x "$python" ] || "$root/tools/django.sh"

find_tests() {
    version=$(sed -n 's/^Django==//p' "$root/tests/django/requirements.txt")
    tests=$OUT/Django-$version/tests
    [ ! -f "$tests/runtests.py" ] || return 0
    mkdir -p "$OUT/Django-$version"
    "$python" -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: --dest "$OUT" "django==$version"
    tar -xzf "$OUT"/[Dd]jango-"$version".tar.gz -C "$OUT/Django-$version" --strip-components=1
}

settings() { # port
    cat <<END
def database(name):
    return {"ENGINE": "django.db.backends.postgresql", "NAME": name, "TEST": {"NAME": name}, "USER": "postgres", "HOST": "127.0.0.1", "PORT": "$1"}
DATABASES = {"default": database("$DATABASE"), "other": database("$OTHER")}
SECRET_KEY = "a test's"
USE_TZ = False
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
END
}

run_suite() { # plain or group, port, labels
    where=$1 port=$2
    shift 2
    mkdir -p "$work/$where.settings"
    settings "$port" > "$work/$where.settings/suite_settings.py"
    (cd "$tests" && PYTHONPATH="$work/$where.settings" PYTHONWARNINGS=ignore "$python" runtests.py --settings=suite_settings --parallel=1 \
        --keepdb --noinput -v 2 "$@") > "$OUT/$where.log" 2>&1 || true
    tail -3 "$OUT/$where.log" | sed "s/^/$where: /"
    # "test_name (module.Class.test_name)", on the line of its verdict or on one before it.
    sed -n 's/^\(FAIL\|ERROR\): \(.*\)$/\2/p' "$OUT/$where.log" | sort -u > "$OUT/$where.failed"
}

replicate_other() {
    for port in "$base_port" $((base_port + 1)) $((base_port + 2)); do
        query "$port" postgres "CREATE DATABASE $OTHER"
        query "$port" "$OTHER" "CREATE EXTENSION postgres_r"
        query "$port" postgres "ALTER DATABASE $OTHER START REPLICATION IN GROUP postgresr"
    done
    query "$plain_port" postgres "CREATE DATABASE $OTHER"
}

[ $# -gt 0 ] || set -- basic bulk_create constraints migrations postgres_tests queries schema select_for_update transactions
mkdir -p "$OUT"
find_tests
start_servers "max_connections = 200"
replicate_other
say "running $* on both"
run_suite plain "$plain_port" "$@"
run_suite group "$base_port" "$@"

failures=0
comm -13 "$OUT/plain.failed" "$OUT/group.failed" > "$OUT/worse.txt"
grep -q '^Ran [1-9]' "$OUT/group.log" || { say "nothing ran on the group, see $OUT/group.log"; failures=1; }
[ ! -s "$OUT/worse.txt" ] || { say "fail on the group only:"; cat "$OUT/worse.txt"; failures=1; }
for database in "$DATABASE" "$OTHER"; do
    "$bin/psql" -h 127.0.0.1 -p "$base_port" -U postgres -d "$database" -X \
        -c "SELECT * FROM postgres_r.verify() WHERE verdict <> 'equal'" > "$OUT/$database.verify" 2>&1 || true
    grep -q '^(0 rows)' "$OUT/$database.verify" || { say "the nodes differ, see $OUT/$database.verify"; failures=1; }
    online=$("$bin/psql" -h 127.0.0.1 -p "$base_port" -U postgres -d "$database" -qAtX -c "SELECT count(*) FROM postgres_r.members WHERE state = 'online'")
    [ "$online" = 3 ] || { say "$database: $online of 3 nodes are online"; failures=1; }
done
[ "$failures" -eq 0 ] || die "the group does not do what the plain server does"
say "no test fails on the group that does not fail on the plain server; all nodes equal"
