#!/bin/sh
# Makes .venv with Berth in it (`dev`: and what the tests need), or brings it up to date. Called by make.
set -eu
cd "$(dirname "$0")/.."
wish=${1:-}

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

if [ ! -x .venv/bin/python ] || ! new_enough .venv/bin/python; then
    candidates="${PYTHON:-} python3.13 python3.12 python3.11 python3.14 python3"
    # Started by root, the portal runs as a user of its own, who cannot run a Python from root's home.
    [ "$(id -u)" != 0 ] || candidates="${PYTHON:-} /usr/bin/python3 /usr/local/bin/python3 $candidates"
    found=
    for name in $candidates; do
        command -v "$name" >/dev/null && new_enough "$name" || continue
        found=$name
        rm -rf .venv
        "$name" -m venv .venv >/dev/null 2>&1 && break
        rm -rf .venv
    done
    if [ ! -x .venv/bin/python ]; then
        echo "${found:+$found cannot make a virtual environment. }Berth needs Python 3.11 or newer with its venv module." >&2
        echo "On Debian or Ubuntu: apt-get install python3 python3-venv. Or name one: make run PYTHON=/path/to/python3" >&2
        exit 1
    fi
fi
echo "Installing Berth into .venv/ (once; about a minute) …"
.venv/bin/python -m pip install -qq --disable-pip-version-check -e ".${wish:+[$wish]}"
touch .venv/ready ${wish:+".venv/ready-$wish"}
