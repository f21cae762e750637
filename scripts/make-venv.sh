#!/usr/bin/env bash
# make-venv.sh PYTHON DIRECTORY WHAT
#
# Makes a virtual environment when there is none, and installs WHAT (".", ".[dev]") into it, editable.
set -euo pipefail

python=$1 directory=$2 what=$3

"$python" - <<'PY'
import sys
if sys.version_info < (3, 11):
    sys.exit(f"cloison needs Python 3.11 or later, this is {sys.version.split()[0]}; choose one with: make PYTHON=…")
PY
if [[ ! -x $directory/bin/python ]]; then
    echo "making a virtual environment in $directory"
    "$python" -m venv "$directory"
fi
echo "installing cloison${what#.} into $directory"
"$directory/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$what"
