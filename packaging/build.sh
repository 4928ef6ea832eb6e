#!/bin/sh
# Makes Debian packages: gcs, the daemon, and postgresql-NN-postgres-r, the extension for one major version of PostgreSQL. What goes into them is what
# `make install` builds.
#
#   packaging/build.sh
#
#   PG_CONFIG   the pg_config of the PostgreSQL that the extension is for (default: Debian's PostgreSQL 15)
#   OUT         where the packages go (default: target/packages)

set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
PG_CONFIG=${PG_CONFIG:-/usr/lib/postgresql/15/bin/pg_config}
target=${CARGO_TARGET_DIR:-$root/target}
OUT=${OUT:-$target/packages}
die() { printf 'packages: error: %s\n' "$*" >&2; exit 1; }

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$root/Cargo.toml" | head -n 1)
architecture=$(dpkg --print-architecture)
major=$("$PG_CONFIG" --version | sed 's/^PostgreSQL \([0-9]*\).*/\1/')
maintainer='The developers of postgres_r <postgres_r@localhost>'
[ -x "$target/release/gcs" ] || die "there is no $target/release/gcs; run 'make install' first"

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
mkdir -p "$OUT"

# What every package has: who may do what with it, and what is new.
documents() { # package
    mkdir -p "$stage/$1/usr/share/doc/$1"
    cp "$root/LICENSE" "$stage/$1/usr/share/doc/$1/copyright"
    gzip -9nc "$root/CHANGELOG.md" > "$stage/$1/usr/share/doc/$1/changelog.gz"
}

# The libraries that a program or library needs, as packages of at least the version that it was built with.
libraries() { # file
    mkdir -p "$stage/debian"
    : > "$stage/debian/control"
    (cd "$stage" && dpkg-shlibdeps -O -e"$1" 2> /dev/null) | sed -n 's/^shlibs:Depends=//p'
}

build() { # package
    mkdir -p "$stage/$1/DEBIAN"
    (cd "$stage/$1" && find . -path ./DEBIAN -prune -o -type f -printf '%P\0' | sort -z | xargs -0 md5sum > DEBIAN/md5sums)
    size=$(du -sk --exclude=DEBIAN "$stage/$1" | cut -f 1)
    sed -i "s/^Architecture: .*/&\nInstalled-Size: $size/" "$stage/$1/DEBIAN/control"
    chmod -R u=rwX,go=rX "$stage/$1"
    find "$stage/$1/DEBIAN" -name 'p*' -exec chmod 755 {} +
    dpkg-deb --root-owner-group --build "$stage/$1" "$OUT/${1}_${version}_$architecture.deb"
}

gcs_package() {
    package=$stage/gcs
    documents gcs
    install -D -m 755 "$target/release/gcs" "$package/usr/bin/gcs"
    strip --strip-debug "$package/usr/bin/gcs"
    mkdir -p "$package/lib/systemd/system" "$package/usr/share/man/man1" "$package/usr/share/bash-completion/completions" \
        "$package/usr/share/zsh/vendor-completions" "$package/usr/share/fish/vendor_completions.d"
    gcs=$package/usr/bin/gcs
    "$gcs" gen systemd > "$package/lib/systemd/system/gcs.service"
    "$gcs" gen completions bash > "$package/usr/share/bash-completion/completions/gcs"
    "$gcs" gen completions zsh > "$package/usr/share/zsh/vendor-completions/_gcs"
    "$gcs" gen completions fish > "$package/usr/share/fish/vendor_completions.d/gcs.fish"
    "$gcs" gen man "$package/usr/share/man/man1"
    gzip -9n "$package"/usr/share/man/man1/*.1
    # Where no systemd makes it. With one the unit does.
    mkdir -p "$package/usr/lib/tmpfiles.d"
    echo 'd /run/gcs 0755 postgres postgres' > "$package/usr/lib/tmpfiles.d/gcs.conf"
    mkdir -p "$package/DEBIAN"
    cat > "$package/DEBIAN/control" <<END
Package: gcs
Version: $version
Architecture: $architecture
Maintainer: $maintainer
Section: database
Priority: optional
Depends: $(libraries "$gcs"), adduser
Recommends: postgresql-$major-postgres-r
Description: group communication daemon of postgres_r
 One daemon a node keeps the order of a group of PostgreSQL servers that replicate
 each other synchronously, with every node open for writing.
END
    cp "$root/packaging/gcs.postinst" "$package/DEBIAN/postinst"
    cp "$root/packaging/gcs.prerm" "$package/DEBIAN/prerm"
    cp "$root/packaging/gcs.postrm" "$package/DEBIAN/postrm"
    build gcs
}

extension_package() {
    name=postgresql-$major-postgres-r
    package=$stage/$name
    documents "$name"
    library=$("$PG_CONFIG" --pkglibdir) share=$("$PG_CONFIG" --sharedir)
    [ -f "$library/postgres_r.so" ] || die "there is no $library/postgres_r.so; run 'make install' first"
    install -D -m 644 "$library/postgres_r.so" "$package/usr/lib/postgresql/$major/lib/postgres_r.so"
    strip --strip-debug "$package/usr/lib/postgresql/$major/lib/postgres_r.so"
    for file in "$share"/extension/postgres_r.control "$share"/extension/postgres_r--*.sql; do
        install -D -m 644 "$file" "$package/usr/share/postgresql/$major/extension/$(basename "$file")"
    done
    mkdir -p "$package/DEBIAN"
    cat > "$package/DEBIAN/control" <<END
Package: $name
Version: $version
Architecture: $architecture
Maintainer: $maintainer
Section: database
Priority: optional
Depends: $(libraries "$package/usr/lib/postgresql/$major/lib/postgres_r.so"), postgresql-$major
Recommends: gcs
Description: synchronous multi-master replication for PostgreSQL $major
 The extension postgres_r: captures what transactions change, has a group of servers
 agree on their order through the daemon gcs, and applies them everywhere.
END
    build "$name"
}

gcs_package
extension_package
