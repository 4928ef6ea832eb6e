#!/bin/sh
# Makes certificates for a group in Kubernetes by an authority of its own, on the machine of whoever runs it. The authority's key never goes
# into the cluster.
#
#   packaging/kubernetes/certificates.sh DIRECTORY GROUP NODE...
#   kubectl create secret generic postgres-r-certificates --from-file=DIRECTORY/secret
#
#   DIRECTORY/authority   ca.key, which is to be kept away from everybody, and ca.pem
#   DIRECTORY/secret      ca.pem, and NODE.pem and NODE.key of each node: what the nodes need
#
# An authority that is there is used (ten years). Nodes that are named get a new key and certificate (a year); the others keep theirs.

set -eu
umask 077

die() { printf 'certificates: error: %s\n' "$*" >&2; exit 2; }

[ $# -ge 3 ] || die 'usage: certificates.sh DIRECTORY GROUP NODE...'
directory=$1 group=$2
shift 2
for name in "$group" "$@"; do
    case $name in '' | *[!A-Za-z0-9_.-]*) die "\"$name\" must be letters, digits, \"_\", \"-\" or \".\"" ;; esac
done
authority=$directory/authority secret=$directory/secret
mkdir -p "$authority" "$secret"
work=$(mktemp -d "$directory/new.XXXXXX")
trap 'rm -rf "$work"' EXIT

key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2> /dev/null; }

if [ ! -f "$authority/ca.pem" ]; then
    key "$work/ca.key"
    openssl req -x509 -new -key "$work/ca.key" -days 3650 -subj "/CN=$group" -out "$work/ca.pem" \
        -addext 'basicConstraints=critical,CA:TRUE,pathlen:0' -addext 'keyUsage=critical,keyCertSign,cRLSign'
    mv "$work/ca.key" "$work/ca.pem" "$authority/"
fi
cp "$authority/ca.pem" "$secret/ca.pem"
for node in "$@"; do
    key "$work/$node.key"
    openssl req -new -key "$work/$node.key" -subj "/CN=$node" -out "$work/request"
    cat > "$work/extensions" <<END
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
subjectAltName = URI:gcs://$group/$node
END
    openssl x509 -req -in "$work/request" -CA "$authority/ca.pem" -CAkey "$authority/ca.key" -days 365 -extfile "$work/extensions" \
        -set_serial "0x$(openssl rand -hex 15)" -out "$work/$node.pem" 2> /dev/null
    mv "$work/$node.key" "$work/$node.pem" "$secret/"
done
echo "certificates of $* in $secret"
