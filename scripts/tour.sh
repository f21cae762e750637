#!/usr/bin/env bash
# A guided tour: one real container after another, on roots of its own, nothing left behind.
#
# The image host/base is made from this machine's own programs, so that no network is needed.
set -euo pipefail

if [[ $(id -u) -ne 0 ]]; then
    echo "the tour needs root: sudo $0" >&2
    exit 1
fi

python=$(dirname "$(command -v cloison || { echo "no cloison on PATH: make run" >&2; exit 1; })")/python

export CLOISON_DATA_ROOT CLOISON_RUN_ROOT
CLOISON_DATA_ROOT=$(mktemp -d /var/tmp/cloison-tour.XXXXXX)
CLOISON_RUN_ROOT=$(mktemp -d /run/cloison-tour.XXXXXX)
forwarding=$(cat /proc/sys/net/ipv4/ip_forward)

# What this pair of roots calls its bridge, its nft table and its cgroup directories
read -r bridge table cgroup < <("$python" -c '
import os
from cloison.model.settings import settings_for
own = settings_for(dict(os.environ))
print(own.bridge, own.nft_table, own.cgroup_parent)')

clean_up() {
    local status=$? names family
    set +e
    names=$(cloison ps -aq 2>/dev/null)
    # shellcheck disable=SC2086  # one word a container
    [[ -n $names ]] && cloison rm -f -v $names >/dev/null
    ip link del "$bridge" 2>/dev/null
    for family in ip ip6 inet bridge; do nft delete table "$family" "$table" 2>/dev/null; done
    find /sys/fs/cgroup -depth -type d -path "*/$cgroup*" -exec rmdir {} + 2>/dev/null
    echo "$forwarding" >/proc/sys/net/ipv4/ip_forward
    rm -rf "$CLOISON_RUN_ROOT" "$CLOISON_DATA_ROOT"
    exit "$status"
}
trap clean_up EXIT

bold() { if [[ -t 1 ]]; then printf '\n\033[1m%s\033[0m\n' "$1"; else printf '\n== %s\n' "$1"; fi; }
show() {
    local word line='$ cloison'
    for word in "$@"; do
        if [[ $word == *[!a-zA-Z0-9_.,/:=@+-]* ]]; then line+=" '$word'"; else line+=" $word"; fi
    done
    echo "$line"
    cloison "$@"
}

bold "A container, from an image made of this machine's own programs"
show run --rm host/base sh -c 'echo "hello from pid $$ on $(hostname)"'

bold "Own processes: the command is pid 1, and there is nobody else"
show run --rm host/base ps -ef

bold "Own network: one address on a bridge, or none at all"
show run --rm host/base ip -brief address
show run --rm --network none host/base ip -brief address

bold "Own root: an overlay; what is written there stays there"
show run --rm host/base sh -c 'ls /; echo mine >/only-here; grep " / " /proc/self/mounts'

bold "No privilege to speak of: 11 capabilities, none new, a seccomp filter, three descriptors"
show run --rm host/base grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status
show run --rm host/base sh -c 'ls /proc/1/fd; dmesg 2>&1 | head -n 1; wc -c </proc/timer_list 2>&1'

bold "Limits that bite: 64 MiB of memory, and a command that wants 200"
status=0
show run --name greedy -m 64m host/base python3 -c 'x = b"x" * (200 << 20)' || status=$?
echo "exit code $status"
show inspect --format 'OOMKilled: {{.State.OOMKilled}}' greedy
show rm greedy

bold "A published port: a web server inside, a client outside"
show run -d --name web -p 127.0.0.1:0:8000 -w /etc host/base python3 -u -m http.server 8000
port=$(cloison inspect --format '{{json .NetworkSettings.Ports}}' web | grep -o '"HostPort": *"[0-9]*"' | grep -o '[0-9]*')
for _ in $(seq 100); do
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break
    sleep 0.05
done
exec 3<>"/dev/tcp/127.0.0.1/$port"
printf 'GET /hostname HTTP/1.0\r\n\r\n' >&3
echo "\$ GET http://127.0.0.1:$port/hostname"
cat <&3
exec 3>&-
show ps
show exec web cat /proc/1/comm
show logs web
show stop -t 1 web
show rm web

bold "How long does one take?"
start=$(date +%s%N)
for _ in 1 2 3 4 5 6 7 8 9 10; do cloison run --rm --network none host/base true; done
echo "ten containers, one after the other: $((($(date +%s%N) - start) / 1000000)) ms"

bold "Nothing is left"
show ps -a
echo "mounts: $(grep -c "$CLOISON_RUN_ROOT" /proc/self/mountinfo || true), cgroups: $(find /sys/fs/cgroup -mindepth 2 -type d -path "*/$cgroup/*" | wc -l)"
