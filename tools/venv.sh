#!/bin/sh
# Makes .venv with Berth in it (`dev`: and what the tests need), or brings it up to date. Called by make.
set -eu
cd "$(dirname "$0")/.."
wish=${1:-}

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

if [ ! -x .venv/bin/python ] || ! new_enough .venv/bin/python; then
    python=
    for name in ${PYTHON:-} python3.13 python3.12 python3.11 python3.14 python3; do
        if command -v "$name" >/dev/null && new_enough "$name"; then python=$name; break; fi
    done
    if [ -z "$python" ]; then
        echo "Berth needs Python 3.11 or newer, and finds none. On Debian or Ubuntu: apt-get install python3 python3-venv" >&2
        echo "(or name one: make run PYTHON=/path/to/python3)" >&2
        exit 1
    fi
    rm -rf .venv
    if ! "$python" -m venv .venv; then
        rm -rf .venv
        echo "$python cannot make a virtual environment. On Debian or Ubuntu: apt-get install python3-venv" >&2
        exit 1
    fi
fi
echo "Installing Berth into .venv/ (once; about a minute) …"
.venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".${wish:+[$wish]}"
touch .venv/ready ${wish:+".venv/ready-$wish"}
