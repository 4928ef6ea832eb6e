# shellcheck shell=sh
# PostgreSQL's source as Debian's source packages have it. Programs that need it source this file.
#
# apt is asked by a scratch configuration: the machine's own stays as it is. 15 is Debian 12's own; the others are of the
# suite that has them.

# The suite of a major version; nothing where it is the machine's own.
source_suite() { # major
    case $1 in
        15) ;;
        17) echo trixie ;;
        *) echo sid ;;
    esac
}

# The machine's sources of packages as sources of source packages, in a directory of their own. With a suite, those of
# Debian itself, for that suite; sid has neither updates nor security of its own.
source_parts() { # directory suite
    own=$(. /etc/os-release && echo "$VERSION_CODENAME")
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
        # Those that are of sources alone would be there twice.
        grep -qs -e '^Types:.*deb\( \|$\)' -e '^deb ' "$file" || continue
        sed -e 's/^Types:.*/Types: deb-src/' -e 's/^deb /deb-src /' "$file" |
            case $2 in
                '') cat ;;
                sid) sed -e "/^Suites:/ s/\<$own-[a-z]*//g" -e "/^deb-src .* $own-/d" -e "s/\<$own\>/sid/g" ;;
                *) sed -e "s/\<$own\>/$2/g" ;;
            esac |
            awk -v RS= -v ORS='\n\n' -v suite="$2" '
                # Somebody else'"'"'s source of packages has no suite of that name.
                /^deb-src|\ndeb-src/ || $0 ~ "(^|\n)Suites: [^\n]*" suite' > "$1/$(basename "$file")"
    done
}

# Prints the path of the archive of PostgreSQL's source; fails where it cannot be had.
source_archive() { # scratch-directory major
    mkdir -p "$1/lists/partial" "$1/cache/archives/partial" "$1/parts"
    source_parts "$1/parts" "$(source_suite "$2")"
    (
        package=postgresql-$2
        cd "$1"
        set -- -qq -o Dir::Etc::SourceList=/dev/null -o "Dir::Etc::SourceParts=$1/parts" \
            -o "Dir::State::Lists=$1/lists" -o "Dir::Cache=$1/cache" -o APT::Sandbox::User=root
        apt-get "$@" update >&2 || exit 1
        # The newest that the mirror has: any of the major will do.
        for version in $(apt-cache "$@" showsrc --only-source "$package" | sed -n 's/^Version: //p' | sort -Vru); do
            apt-get "$@" source --download-only "$package=$version" >&2 && break
            rm -f "$package"_*
        done
    ) || return 1
    for archive in "$1/postgresql-$2"_*.orig.tar.*; do
        [ -e "$archive" ] && echo "$archive" && return 0
    done
    return 1
}
