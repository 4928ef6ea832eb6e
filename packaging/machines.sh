# Three machines, for checks of packages: to be read by a script that has set `root`. A machine is a network namespace and a directory that begins as this
# system and is changed alone (overlayfs); nothing of this system is touched. They are 10.0.0.1 to 10.0.0.3. Needs root.
#
#   OUT   where the packages are (default: target/packages)
# shellcheck shell=sh disable=SC2154 # root is the script's

OUT=${OUT:-${CARGO_TARGET_DIR:-$root/target}/packages}
work=$(mktemp -d /tmp/packages.XXXXXX)
bridge=pr$$

say() { printf 'packages: %s\n' "$*"; }
die() { printf 'packages: error: %s\n' "$*" >&2; exit 1; }

machines='1 2 3'
in_machine() { # number, command
    number=$1
    shift
    ip netns exec "$bridge-$number" chroot "$work/$number/root" /usr/bin/env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
        DEBIAN_FRONTEND=noninteractive HOME=/root sh -c "cd /root; $*"
}

# Everything that was started is ended by its pid, if that is still the pid of a process of the machine.
clean_up() {
    for number in $machines; do
        pids=$(ip netns pids "$bridge-$number" 2> /dev/null | tr '\n' ' ') || pids=
        for file in "$work/$number"/root/run/*.pid "$work/$number"/root/var/lib/postgresql/15/main/postmaster.pid; do
            [ -f "$file" ] || continue
            pid=$(head -n 1 "$file")
            case " $pids " in *" $pid "*) kill -INT "$pid" 2> /dev/null || true ;; esac
        done
    done
    for number in $machines; do
        for pid in $(ip netns pids "$bridge-$number" 2> /dev/null); do
            timeout 20 tail --pid="$pid" -f /dev/null || kill -KILL "$pid" 2> /dev/null || true
        done
        umount "$work/$number/root/proc" "$work/$number/root/dev" "$work/$number/root" 2> /dev/null || true
        umount "$work/$number" 2> /dev/null || true
        ip netns del "$bridge-$number" 2> /dev/null || true
    done
    ip link del "$bridge" 2> /dev/null || true
    rm -rf --one-file-system "$work"
}

make_machine() { # number
    here=$work/$1
    mkdir -p "$here"
    mount -t tmpfs tmpfs "$here"
    mkdir "$here/upper" "$here/work" "$here/root"
    mount -t overlay overlay -o "lowerdir=/,upperdir=$here/upper,workdir=$here/work" "$here/root"
    machine=$here/root
    mount --bind /dev "$machine/dev"
    mount -t proc proc "$machine/proc"
    # As a machine is on which nobody has built anything.
    rm -rf "$machine"/usr/lib/postgresql/15/lib/postgres_r.so "$machine"/usr/share/postgresql/15/extension/postgres_r* \
        "$machine"/etc/postgresql/* "$machine"/var/lib/postgresql/* "$machine"/etc/postgresql-common/createcluster.d/postgres_r.conf \
        "$machine"/run/* "$machine"/root/*
    mkdir -p "$machine/run/postgresql" "$machine/run/gcs"
    chown postgres:postgres "$machine/run/postgresql" "$machine/run/gcs"
    cp "$OUT"/*.deb "$machine/root/"
    ip netns add "$bridge-$1"
    ip link add "$bridge-$1" type veth peer name eth0 netns "$bridge-$1"
    ip link set "$bridge-$1" master "$bridge" up
    ip -n "$bridge-$1" address add "10.0.0.$1/24" dev eth0
    ip -n "$bridge-$1" link set eth0 up
    ip -n "$bridge-$1" link set lo up
}

make_machines() {
    [ "$(id -u)" -eq 0 ] || die "needs root, for namespaces and mounts"
    ls "$OUT"/gcs_*.deb > /dev/null 2>&1 || die "there are no packages in $OUT; run packaging/build.sh first"
    trap clean_up EXIT
    trap 'exit 1' INT TERM

    ip link add "$bridge" type bridge
    ip link set "$bridge" up
    for number in $machines; do
        make_machine "$number"
    done
}
