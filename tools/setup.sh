#!/bin/sh
# Installs what building and testing need on Debian 12, and nothing that is there already. Says what it is about to do first.
# Safe to repeat; does nothing, quickly, when all is there. Never creates, starts or stops a PostgreSQL cluster: the
# packages' automatic cluster `main` is held back, and so are service starts, while the packages are unpacked.
#
#   tools/setup.sh bench     also what the benchmarks compare with: sysbench, MariaDB with Galera, perf
#   tools/setup.sh contrib   also the languages that some of contrib's modules are for
#   tools/setup.sh source    only what building PostgreSQL from its source takes
#
#   PG_CONFIG   the pg_config of the PostgreSQL to build against (default: Debian's PostgreSQL 15)

set -eu

PGRX_VERSION=0.18.1
RUST_MINIMUM=1.95
PACKAGES="build-essential pkg-config ca-certificates libclang-dev protobuf-compiler
          postgresql-15 postgresql-client-15 postgresql-server-dev-15 python3-venv pgbouncer
          iproute2 nftables libfaketime e2fsprogs mount valgrind chromium chromium-driver
          haproxy keepalived curl openssl shellcheck"
CONTRIB_PACKAGES="postgresql-plperl-15 postgresql-plpython3-15"
SOURCE_PACKAGES="build-essential pkg-config dpkg-dev bison flex libreadline-dev zlib1g-dev libicu-dev libssl-dev
                 liblz4-dev libzstd-dev libxml2-dev"
BENCH_PACKAGES="sysbench mariadb-server galera-4 rsync linux-perf"
DEBIAN_PG_CONFIG=/usr/lib/postgresql/15/bin/pg_config
PG_CONFIG=${PG_CONFIG:-$DEBIAN_PG_CONFIG}

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: error: %s\n' "$*" >&2; exit 1; }

if [ "$(id -u)" -eq 0 ]; then
    as_root=
elif command -v sudo >/dev/null 2>&1; then
    as_root=sudo
else
    as_root=false
fi

case ${1:-} in
    '') ;;
    bench) PACKAGES="$PACKAGES $BENCH_PACKAGES" ;;
    contrib) PACKAGES="$PACKAGES $CONTRIB_PACKAGES" ;;
    source) PACKAGES=$SOURCE_PACKAGES ;;
    *) die "unknown argument \"$1\"; there are: bench, contrib, source" ;;
esac

is_installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# With a PostgreSQL of the caller's own, Debian's is not wanted.
wanted_packages() {
    for package in $PACKAGES; do
        case $package in
            postgresql-*) [ "$PG_CONFIG" = "$DEBIAN_PG_CONFIG" ] || continue ;;
        esac
        is_installed "$package" || printf '%s ' "$package"
    done
}

# Undone by `release_services`, also when the installation fails.
hold_services() {
    drop_in=/etc/postgresql-common/createcluster.d/postgres_r.conf
    policy=/usr/sbin/policy-rc.d
    trap release_services EXIT
    trap 'exit 130' INT TERM
    if ! is_installed postgresql-15; then
        $as_root mkdir -p /etc/postgresql-common/createcluster.d
        echo 'create_main_cluster = false' | $as_root tee "$drop_in" >/dev/null
        made_drop_in=yes
    fi
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
        $as_root chmod 755 "$policy"
        made_policy=yes
    fi
}

release_services() {
    [ -z "${made_drop_in:-}" ] || $as_root rm -f "$drop_in"
    [ -z "${made_policy:-}" ] || $as_root rm -f "$policy"
    made_drop_in= made_policy=
    trap - EXIT INT TERM
}

install_packages() {
    missing=$(wanted_packages)
    [ -n "$missing" ] || return 0
    command -v apt-get >/dev/null 2>&1 ||
        die "this is not Debian; install the equivalents of: $missing"
    say "installing Debian packages: $missing(no cluster is created, no service started)"
    [ "$as_root" != false ] || die "installing packages needs root or sudo"
    hold_services
    $as_root apt-get update -qq
    # The cluster tools first, so that the held-back cluster can be checked before the server's package looks.
    case $missing in
        *postgresql-15*)
            $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql-common
            [ "$(pg_conftool /etc/postgresql-common/createcluster.conf show -bs create_main_cluster)" = off ] ||
                die "cannot hold back the cluster main: /etc/postgresql-common/createcluster.conf ignores createcluster.d"
            ;;
    esac
    # shellcheck disable=SC2086 # a list of words
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
    # Not now, as said, and not at the next boot either.
    case $missing in
        *mariadb-server*) ! command -v systemctl >/dev/null 2>&1 || $as_root systemctl --quiet disable mariadb ;;
    esac
    release_services
}

check_rust() {
    command -v cargo >/dev/null 2>&1 || die "cargo is missing; install Rust $RUST_MINIMUM or later from rustup.rs"
    found=$(cargo --version | cut -d' ' -f2)
    oldest=$(printf '%s\n%s\n' "$RUST_MINIMUM" "$found" | sort -V | head -n1)
    [ "$oldest" = "$RUST_MINIMUM" ] || die "cargo $found is too old; Rust $RUST_MINIMUM or later is needed (rustup update)"
}

install_pgrx() {
    if [ "$(cargo pgrx --version 2>/dev/null)" != "cargo-pgrx $PGRX_VERSION" ]; then
        say "installing cargo-pgrx $PGRX_VERSION with cargo, into ${CARGO_HOME:-~/.cargo}/bin"
        cargo install --quiet cargo-pgrx --version "=$PGRX_VERSION" --locked
    fi
    [ -x "$PG_CONFIG" ] || die "$PG_CONFIG is not there; set PG_CONFIG to the pg_config of a PostgreSQL 15, 17 or 18"
    case $("$PG_CONFIG" --version) in
        "PostgreSQL 15."*) major=15 ;;
        "PostgreSQL 17."*) major=17 ;;
        "PostgreSQL 18."*) major=18 ;;
        *) die "$PG_CONFIG belongs to $("$PG_CONFIG" --version); PostgreSQL 15, 17 or 18 is needed" ;;
    esac
    # cargo-pgrx builds nothing for a PostgreSQL that it was not told of.
    if ! grep -qs "^pg$major *= *\"$PG_CONFIG\"" "${PGRX_HOME:-$HOME/.pgrx}/config.toml"; then
        say "telling cargo-pgrx of $PG_CONFIG, in ${PGRX_HOME:-~/.pgrx}"
        cargo pgrx init "--pg$major" "$PG_CONFIG" >/dev/null
    fi
}

install_packages
[ "${1:-}" != source ] || exit 0
check_rust
install_pgrx
