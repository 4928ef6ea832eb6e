#!/bin/sh
# Runs what packaging/kubernetes would run, on three machines (machines.sh) instead of in three pods: the environment and the arguments of each container
# as the manifests give them, the files of the ConfigMap, certificates by certificates.sh, volumes as directories that can be lost. What no cluster has looked at
# stands in docs/kubernetes.md. Needs root, and target/manifests (check-manifests.sh).
#
#   packaging/check-pods.sh
#
#   OUT   where the packages are (default: target/packages)

set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/packaging/machines.sh"
# What the containers have said last says why.
die() {
    tail -n 15 "$work"/*/root/var/log/gcs.log "$work"/*/root/var/log/postgres.log || true
    printf 'packages: error: %s\n' "$*" >&2
    exit 1
}
python=${CARGO_TARGET_DIR:-$root/target}/manifests/bin/python

pod_of() { echo "postgres-r-$(($1 - 1))"; }

# As a member of the user's own group, without root, like a container of the pod.
as_postgres='cd /; setpriv --reuid=postgres --regid=postgres --init-groups env PATH=/usr/lib/postgresql/15/bin:/usr/local/bin:/usr/bin:/bin'

finish_machine() { # number
    machine=$work/$1/root
    in_machine "$1" 'apt-get install -y ./gcs_*.deb ./postgresql-15-postgres-r_*.deb' > "$work/output" 2>&1 || { cat "$work/output"; die "node$1: the packages"; }
    install -m 755 "$root/packaging/oci/postgres-r-node" "$machine/usr/local/bin/postgres-r-node"
    mkdir -p "$machine/etc/postgres_r" "$machine/etc/gcs/tls"
    "$python" "$root/packaging/manifests.py" files configuration "$machine/etc/postgres_r"
    # A pod has a /dev/shm of its own; this machine has that of this system, or none.
    echo 'dynamic_shared_memory_type = mmap' >> "$machine/etc/postgres_r/postgresql.conf"
    cp "$work/certificates/secret"/* "$machine/etc/gcs/tls/"
    chown -R root:postgres "$machine/etc/gcs/tls"
    chmod 440 "$machine/etc/gcs/tls"/*
    chmod 755 "$machine/etc/postgres_r" "$machine/etc/gcs/tls"
    chmod 644 "$machine/etc/postgres_r"/*
    for other in $machines; do
        echo "10.0.0.$other $(pod_of "$other").postgres-r-nodes"
    done > "$machine/etc/hosts"
    empty_volumes "$1"
}

empty_volumes() { # number
    for volume in var/lib/postgresql var/lib/gcs; do
        rm -rf "${work:?}/$1/root/$volume"
        mkdir "$work/$1/root/$volume"
        chown root:postgres "$work/$1/root/$volume"
        chmod 2770 "$work/$1/root/$volume"
    done
}

# A container that ends by itself.
run_container() { # number, container, --found or nothing
    words=$("$python" "$root/packaging/manifests.py" container "$(pod_of "$1")" "$2" ${3:+"$3"})
    in_machine "$1" "$as_postgres $words"
}

start_container() { # number, container, --found or nothing
    words=$("$python" "$root/packaging/manifests.py" container "$(pod_of "$1")" "$2" ${3:+"$3"})
    in_machine "$1" "$as_postgres $words > /var/log/$2.log 2>&1 & echo \$! > /run/$2.pid"
}

pid_of() { head -n 1 "$work/$1/root/run/$2.pid"; }

# As the container runtime ends one: a signal, and some time.
stop_container() { # number, container, signal
    pid=$(pid_of "$1" "$2")
    kill "-$3" "$pid"
    timeout 60 tail --pid="$pid" -f /dev/null || die "node$1: $2 does not end"
    rm "$work/$1/root/run/$2.pid"
}

start_pod() { # number, --found or nothing
    # The directories of sockets are the pod's, and new with it.
    rm -rf "$work/$1/root/run/gcs" "$work/$1/root/run/postgresql"
    mkdir "$work/$1/root/run/gcs" "$work/$1/root/run/postgresql"
    chown root:postgres "$work/$1/root/run/gcs" "$work/$1/root/run/postgresql"
    chmod 2770 "$work/$1/root/run/gcs" "$work/$1/root/run/postgresql"
    run_container "$1" prepare ${2:+"$2"}
    # In either order: what waits for what is theirs to know.
    start_container "$1" postgres ${2:+"$2"}
    start_container "$1" gcs ${2:+"$2"}
}

hook() { # number, command
    in_machine "$1" "$as_postgres postgres-r-node $2"
}

# As a kubelet does it: both hooks at once, each container gets its signal when its hook has ended.
stop_pod() { # number
    hook "$1" stopped &
    stopped=$!
    hook "$1" drain
    kill -0 "$stopped" 2> /dev/null || die "node$1: the daemon would be stopped before PostgreSQL"
    stop_container "$1" postgres INT
    wait "$stopped" || die "node$1: the daemon's hook"
    stop_container "$1" gcs INT
}

wait_for() { # number
    await_line "$1" gcs +1 'gcs is running'
    in_machine "$1" "$as_postgres gcs wait --synced --writable --timeout 2m --config /run/gcs/gcs.toml" || die "node$1 takes no writes after two minutes"
}

status_of() { in_machine "$1" "curl --silent --output /dev/null --write-out '%{http_code}' http://10.0.0.$1:7180$2"; }

expect() { # what, wanted, found
    [ "$2" = "$3" ] || die "$1: $3, and should be $2"
    say "$1: $3"
}

# Until a container's log has a line of that kind. `grep` is told by a pipe, since a pipeline would wait for the next line of `tail`, too.
await_line() { # number, container, the last lines that count (+1: all), words
    in_machine "$1" "mkfifo /root/lines; tail -n $3 -f /var/log/$2.log > /root/lines & timeout 60 grep -q '$4' /root/lines; status=\$?; kill \$! 2> /dev/null; rm /root/lines; exit \$status" || die "node$1: $2 does not say \"$4\""
}

sql() { # number, statement
    in_machine "$1" "$as_postgres psql --no-psqlrc --quiet --tuples-only --no-align shop -c 'SET postgres_r.read_level = strong' -c \"$2\""
}

[ -x "$python" ] || die "there is no $python; run packaging/check-manifests.sh first"
"$root/packaging/kubernetes/certificates.sh" "$work/certificates" postgresr postgres-r-0 postgres-r-1 postgres-r-2 > /dev/null
make_machines
for number in $machines; do
    finish_machine "$number"
done

say 'all three are started at once, to found a group'
for number in 3 2 1; do
    start_pod "$number" --found
done
await_line 1 postgres +1 'ready to accept connections'
expect 'before there is a database, /healthz of a node that waits for its server' 200 "$(status_of 2 /healthz)"
expect 'and its /writable' 503 "$(status_of 2 /writable)"
in_machine 1 "$as_postgres createdb shop"
in_machine 1 "$as_postgres psql --quiet shop -c 'CREATE EXTENSION postgres_r' -c 'ALTER DATABASE shop START REPLICATION IN GROUP postgresr'"
for number in $machines; do
    wait_for "$number"
done
sql 2 'CREATE TABLE hello (id serial PRIMARY KEY, who text)'
sql 3 "INSERT INTO hello (who) VALUES ('node3')"
expect 'rows of node 3 on node 1' 1 "$(sql 1 'SELECT count(*) FROM hello')"
for number in $machines; do
    expect "/writable of node $number" 200 "$(status_of "$number" /writable)"
done

say 'what is founded already is left alone'
run_container 1 prepare --found
expect 'rows on node 1' 1 "$(sql 1 'SELECT count(*) FROM hello')"

say 'a pod is stopped, and started to be kept running'
stop_pod 2
sql 1 "INSERT INTO hello (who) VALUES ('node1')"
start_pod 2
wait_for 2
expect 'rows on node 2' 2 "$(sql 2 'SELECT count(*) FROM hello')"

say 'all pods are lost at once'
for number in $machines; do
    stop_container "$number" gcs KILL
    stop_container "$number" postgres INT
done
for number in $machines; do
    start_pod "$number"
done
for number in $machines; do
    wait_for "$number"
done
expect 'rows on node 3' 2 "$(sql 3 'SELECT count(*) FROM hello')"

say 'the first node loses its disks, and somebody has left "found" on: it begins no second group'
stop_container 1 gcs KILL
stop_container 1 postgres INT
empty_volumes 1
start_pod 1 --found
await_line 1 gcs +1 refused
expect '/writable of it' 503 "$(status_of 1 /writable)"
expect '/writable of another' 200 "$(status_of 2 /writable)"
stop_container 1 gcs INT
stop_container 1 postgres INT

say 'it is evicted, and comes back by itself with what the others have'
empty_volumes 1
in_machine 2 "$as_postgres gcs evict postgres-r-0 --config /run/gcs/gcs.toml"
start_pod 1
wait_for 1
expect 'rows on node 1' 2 "$(sql 1 'SELECT count(*) FROM hello')"

say 'a daemon is killed between the end of a copy and its word: the word is said when it starts'
stop_container 3 gcs KILL
stop_container 3 postgres INT
mv "$work/3/root/var/lib/postgresql/15/main" "$work/3/root/var/lib/postgresql/15/later"
start_container 3 postgres
await_line 3 postgres +1 'no server yet'
touch "$work/3/root/var/lib/gcs/data/copying_server"
mv "$work/3/root/var/lib/postgresql/15/later" "$work/3/root/var/lib/postgresql/15/main"
in_machine 3 "$as_postgres postgres-r-node copied"
await_line 3 postgres +2 'no server yet'
rm "$work/3/root/var/lib/gcs/data/copying_server"
start_container 3 gcs
wait_for 3
in_machine 1 "$as_postgres gcs status --config /run/gcs/gcs.toml"
for number in $machines; do
    stop_pod "$number"
done
say 'all is well'
