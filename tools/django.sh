#!/bin/sh
# Makes target/django, a virtual environment of Python with what tests/django/requirements.txt names. Does nothing if it is there as
# named. `PYTHON` is the interpreter, Debian's by default.

set -eu
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-/usr/bin/python3}
TARGET=${CARGO_TARGET_DIR:-target}/django
WANTED=tests/django/requirements.txt

if ! cmp -s "$WANTED" "$TARGET/requirements.txt"; then
    echo "django: making $TARGET"
    rm -rf "$TARGET"
    "$PYTHON" -m venv "$TARGET"
    "$TARGET/bin/pip" install --quiet --disable-pip-version-check --no-deps --only-binary :all: -r "$WANTED"
    cp "$WANTED" "$TARGET/requirements.txt"
fi
