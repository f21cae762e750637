#!/usr/bin/env bash
# install-packages.sh PYTHON PACKAGE:PROGRAM…
#
# Installs the Debian packages whose program is not there, and says which. With nothing missing it takes milliseconds.
set -euo pipefail

python=$1
shift
missing=()

# A compiler and make; the headers are looked for because gcc without libc6-dev cannot compile
for pair in gcc:cc make:make libc6-dev:/usr/include/stdlib.h linux-libc-dev:/usr/include/linux/mount.h "$@"; do
    program=${pair#*:}
    if [[ $program == /* ]]; then
        [[ -e $program ]] || missing+=("${pair%%:*}")
    elif ! PATH="$PATH:/usr/sbin:/sbin" command -v "$program" >/dev/null; then
        missing+=("${pair%%:*}")
    fi
done

if ! command -v "$python" >/dev/null; then
    missing+=(python3 python3-venv)
elif ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    # Debian keeps ensurepip apart from its interpreter
    missing+=(python3-venv)
fi

[[ ${#missing[@]} -eq 0 ]] && exit 0

sudo=()
[[ $(id -u) -eq 0 ]] || sudo=(sudo)
if ! command -v apt-get >/dev/null; then
    echo "cloison needs these Debian packages (or their like here): ${missing[*]}" >&2
    exit 1
fi
echo "installing Debian packages: ${missing[*]}"
"${sudo[@]}" apt-get -qq update
# The daemons among them (docker, a registry) are never started on the machine by us: tests and benchmarks start their own
"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -qq -y install --no-install-recommends "${missing[@]}" >/dev/null
