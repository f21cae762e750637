"""The minimal system around the programs of `from-host`, and what `host/base` consists of."""

from __future__ import annotations

import os

from cloison.images.host import find_command
from cloison.model.image import ImageConfig

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloison.images.host import HostTree

HOST_CONFIG = ImageConfig(
    env=("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",), cmd=("/bin/sh",), workdir="/"
)

# every program of GNU coreutils, then what one looks for in an unknown container; a machine has what it has
_HOST_BASE = """
    sh bash dash [ arch b2sum base32 base64 basename basenc cat chcon chgrp chmod chown chroot cksum comm cp
    csplit cut date dd df dir dircolors dirname du echo env expand expr factor false fmt fold groups head hostid
    id install join link ln logname ls md5sum mkdir mkfifo mknod mktemp mv nice nl nohup nproc numfmt od paste
    pathchk pinky pr printenv printf ptx pwd readlink realpath rm rmdir runcon seq sha1sum sha224sum sha256sum
    sha384sum sha512sum shred shuf sleep sort split stat stdbuf stty sum sync tac tail tee test timeout touch tr
    true truncate tsort tty uname unexpand uniq unlink users vdir wc who whoami yes ps top free kill pgrep pkill
    pidof uptime vmstat w watch sysctl pmap ip ss ping hostname nc curl wget getent grep egrep fgrep sed awk
    mawk gawk find xargs tar gzip gunzip zcat zstd xz bzip2 diff cmp which less more mount umount mountpoint
    findmnt lsns nsenter unshare setsid setpriv flock getopt dmesg lscpu prlimit taskset script capsh getcap su
    login useradd clear tput reset tset column hexdump rev python3
""".split()

_PASSWD = """\
root:x:0:0:root:/root:{shell}
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
bin:x:2:2:bin:/bin:/usr/sbin/nologin
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
"""
_GROUP = """\
root:x:0:
daemon:x:1:
bin:x:2:
adm:x:4:
tty:x:5:
disk:x:6:
mail:x:8:
www-data:x:33:
shadow:x:42:
utmp:x:43:
staff:x:50:
users:x:100:
nogroup:x:65534:
"""
_NSSWITCH = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nservices: files\nprotocols: files\n"
_DIRECTORIES = {
    "/dev": 0o755, "/etc": 0o755, "/home": 0o755, "/mnt": 0o755, "/opt": 0o755, "/proc": 0o555, "/root": 0o700,
    "/run": 0o755, "/srv": 0o755, "/sys": 0o555, "/tmp": 0o1777, "/usr/local/bin": 0o755, "/var/cache": 0o755,
    "/var/lib": 0o755, "/var/log": 0o755, "/var/tmp": 0o1777,
}  # fmt: skip
# loaded by name when a program looks up users or hosts, or ends a thread
_RUNTIME_LIBRARIES = ("libnss_files.so.2", "libnss_dns.so.2", "libgcc_s.so.1")
_CERTIFICATES = (
    "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)  # fmt: skip
_OPENSSL = "/usr/lib/ssl"
_OPENSSL_FILES = (
    f"{_OPENSSL}/cert.pem",
    f"{_OPENSSL}/openssl.cnf",
    "/etc/pki/tls/cert.pem",
    "/etc/pki/tls/openssl.cnf",
)
_ZONES = "/usr/share/zoneinfo"
# the same zones again, with leap seconds or under another name
_OTHER_ZONES = frozenset(("posix", "right", "posixrules", "localtime", "leapseconds", "tzdata.zi"))
_TERMINALS = ("ansi", "dumb", "linux", "screen", "screen-256color", "tmux", "tmux-256color", "vt100", "vt220", "xterm",
              "xterm-256color")  # fmt: skip
_TERMINAL_DIRECTORIES = ("/etc/terminfo", "/lib/terminfo", "/usr/share/terminfo")
_COPIED = ("/etc/os-release", "/etc/services", "/etc/protocols")


def host_base_commands() -> Sequence[str]:
    """What `host/base` has: those of the usual commands that this machine has."""
    return [name for name in _HOST_BASE if find_command(name)]


def add_system(tree: HostTree) -> None:
    """Directories, users, names, certificates, time zones and terminals."""
    for path, mode in _DIRECTORIES.items():
        tree.make_directory(path, mode)
    shell = "/bin/bash" if find_command("bash") in tree else "/bin/sh"
    tree.make_file("/etc/passwd", _PASSWD.format(shell=shell))
    tree.make_file("/etc/group", _GROUP)
    tree.make_file("/etc/nsswitch.conf", _NSSWITCH)
    tree.make_file("/etc/hosts", "127.0.0.1\tlocalhost\n::1\tlocalhost\n")
    tree.make_file("/etc/hostname", "localhost\n")
    tree.make_file("/etc/resolv.conf", "")
    tree.add_optional(_COPIED)
    for library in _RUNTIME_LIBRARIES:
        tree.add_library(library)
    if tree.needs_cache:
        tree.add_optional(("/etc/ld.so.cache",))
    _add_certificates(tree)
    _add_time_zones(tree)
    tree.add_optional(f"{directory}/{name[0]}/{name}" for directory in _TERMINAL_DIRECTORIES for name in _TERMINALS)


def _add_certificates(tree: HostTree) -> None:
    tree.add_optional((*_CERTIFICATES, *_OPENSSL_FILES))
    bundle = next(filter(os.path.isfile, _CERTIFICATES), "")
    # OpenSSL reads one file of its own directory, where Debian has a directory of a thousand links instead
    if bundle and os.path.isdir(_OPENSSL) and not os.path.exists(f"{_OPENSSL}/cert.pem"):
        tree.make_link(f"{_OPENSSL}/cert.pem", bundle)


def _add_time_zones(tree: HostTree) -> None:
    if os.path.isdir(_ZONES):
        tree.add_tree(_ZONES, skip=lambda _directory, name: name in _OTHER_ZONES)
        if os.path.isfile(f"{_ZONES}/UTC"):
            tree.make_link("/etc/localtime", f"{_ZONES}/UTC")
