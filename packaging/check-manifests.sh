#!/bin/sh
# Checks what there is for containers without a container: packaging/kubernetes by Kubernetes' schemas and by what its objects say of each other
# (manifests.py), scripts by a shell and by shellcheck. Makes target/manifests, a virtual environment of Python with what requirements.txt names, if it is
# not there as named.
#
#   packaging/check-manifests.sh
#
#   PYTHON   the interpreter (default: Debian's)

set -eu
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-/usr/bin/python3}
TARGET=${CARGO_TARGET_DIR:-target}/manifests
WANTED=packaging/requirements.txt

if ! cmp -s "$WANTED" "$TARGET/requirements.txt"; then
    echo "manifests: making $TARGET"
    rm -rf "$TARGET"
    "$PYTHON" -m venv "$TARGET"
    "$TARGET/bin/pip" install --quiet --disable-pip-version-check --no-deps --only-binary :all: -r "$WANTED"
    cp "$WANTED" "$TARGET/requirements.txt"
fi

"$TARGET/bin/python" packaging/manifests.py check
for script in packaging/*.sh packaging/kubernetes/*.sh packaging/oci/postgres-r-node; do
    sh -n "$script"
done
shellcheck -x packaging/*.sh packaging/kubernetes/*.sh packaging/oci/postgres-r-node
# What it makes is what a daemon wants: one name, of the authority, for both sides of a connection.
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
packaging/kubernetes/certificates.sh "$made" g n1 > /dev/null
openssl verify -CAfile "$made/secret/ca.pem" -purpose sslclient "$made/secret/n1.pem" > /dev/null
openssl verify -CAfile "$made/secret/ca.pem" -purpose sslserver "$made/secret/n1.pem" > /dev/null
openssl x509 -in "$made/secret/n1.pem" -noout -ext subjectAltName | grep -q 'URI:gcs://g/n1$'
[ ! -e "$made/secret/ca.key" ]
echo 'manifests: scripts are in order'
