#!/bin/sh
# Installs the packages on three machines (machines.sh) and types what docs/install.md says, as it stands there. There is no systemd in them: `systemctl`
# is a stand-in that starts what the unit says. Needs root.
#
#   packaging/check.sh
#
#   OUT   where the packages are (default: target/packages)

set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/packaging/machines.sh"

# What this machine has of systemd, and the cluster that Debian's package makes when it is unpacked for the first time.
finish_machine() { # number
    machine=$work/$1/root
    cat > "$machine/usr/local/bin/systemctl" <<'END'
#!/bin/sh
set -e
case "$*" in
    'enable --now gcs')
        command=$(sed -n 's/^ExecStart=//p' /lib/systemd/system/gcs.service)
        setpriv --reuid=postgres --regid=postgres --init-groups $command > /var/log/gcs.log 2>&1 &
        echo $! > /run/gcs.pid
        # As systemd waits for the daemon to say that it is there.
        timeout 60 sh -c 'tail -n +1 -f /var/log/gcs.log | grep -q "gcs is running"' ;;
    'restart postgresql@15-main') pg_ctlcluster 15 main restart ;;
    'stop postgresql@15-main') pg_ctlcluster 15 main stop ;;
    *) ;;
esac
END
    chmod 755 "$machine/usr/local/bin/systemctl"
    in_machine "$1" 'pg_createcluster 15 main --start' > /dev/null
}

make_machines
for number in $machines; do
    finish_machine "$number"
done

token=
sed -n 's/^    node\([0-9]\)# \(.*\)$/\1 \2/p' "$root/docs/install.md" > "$work/commands"
while read -r number command; do
    say "node$number# $command"
    command=$(printf '%s' "$command" | sed "s/TOKEN/$token/")
    if ! in_machine "$number" "$command" > "$work/output" 2>&1 < /dev/null; then
        cat "$work/output"
        tail -n 20 "$work"/*/root/var/log/gcs.log
        die "node$number: $command"
    fi
    case $command in 'gcs token'*) token=$(grep -o 'gcs1\.[A-Za-z0-9_.-]*' "$work/output" | head -n 1) ;; esac
    # A node that joins has copied its server and caught up when its database is there and open.
    case $number$command in
        [23]*'enable --now gcs')
            in_machine "$number" 'gcs wait --synced --writable --timeout 2m --config /etc/gcs.toml' \
                || { tail -n 20 "$work/$number/root/var/log/gcs.log"; die "node$number takes no clients after two minutes"; } ;;
    esac
done < "$work/commands"
grep -q node3 "$work/output" || die "the row that node3 has written is not on node1"
in_machine 1 'gcs status --config /etc/gcs.toml'
different=$(sed -n 's/^[0-9] //p' "$work/commands" | sed -e 's/node[0-9]/N/g; s/10\.0\.0\.[0-9]/A/g' -e '/gcs status\|hello/d' | sort -u | wc -l)
say "a group of three by $different different commands"

say "what a package leaves when it is removed: the node's own"
in_machine 3 'apt-get remove -y gcs' > /dev/null
in_machine 3 'ls /etc/gcs.toml /var/lib/gcs' > /dev/null
! in_machine 3 'ls /usr/bin/gcs' 2> /dev/null || die "/usr/bin/gcs is still there"
say 'all is well'
