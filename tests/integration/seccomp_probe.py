"""Run as a program: load a seccomp filter (or none, given "-") and print what the kernel then answers."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import mmap
import os
import struct
import subprocess
import sys
import threading
import time

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.argtypes = [ctypes.c_long] * 7
libc.syscall.restype = ctypes.c_long


def call(number: int, *arguments: int) -> str:
    """ "ok" or the name of the errno."""
    result = libc.syscall(number, *(arguments + (0,) * 6)[:6])
    if result == -1:
        return errno.errorcode[ctypes.get_errno()]
    return "ok"


def load(path: str) -> None:
    with open(path, "rb") as file:
        code = file.read()
    program = ctypes.create_string_buffer(code, len(code))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(program)))
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, header, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def sockets() -> dict[str, str]:
    found = {}
    for family in range(46):
        for name, dirt in (("", 0), ("dirty ", 1 << 32)):
            result = libc.syscall(41, family | dirt, 3 if family == 17 else 2, 0, 0, 0, 0)
            found[f"{name}{family}"] = "ok" if result >= 0 else errno.errorcode[ctypes.get_errno()]
            if result >= 0:
                os.close(result)
    return found


def clone(flags: int) -> str:
    pid = libc.syscall(56, flags | 17, 0, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    if pid == -1:
        return errno.errorcode[ctypes.get_errno()]
    os.waitpid(pid, 0)
    return "ok"


def ioctl(request: int) -> str:
    try:
        fcntl.ioctl(0, request, b"x")
    except OSError as err:
        return errno.errorcode[err.errno or 0]
    return "ok"


def i386() -> int:
    """Wait status of a child that does getpid the 32-bit way: mov eax, 20; int 0x80; ret."""
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")
    function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
    pid = os.fork()
    if pid == 0:
        os._exit(0 if function() == os.getpid() else 1)
    return os.waitpid(pid, 0)[1]


def main() -> None:
    if sys.argv[1] != "-":
        load(sys.argv[1])
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.append(1))
    thread.start()
    thread.join()
    begun = time.perf_counter()
    for _ in range(20000):
        os.getppid()
    answers = {
        "sockets": sockets(),
        "clone": {str(bit): clone(1 << bit) for bit in (17, 25, 26, 27, 28, 29, 30)},
        "fork": clone(0),
        "thread": seen,
        "child": subprocess.run(["echo", "hello"], capture_output=True, text=True).stdout,
        "clone3": call(435, 0, 0),
        "unshare": call(272, 0x10000000) if sys.argv[1] != "-" else "",
        "tiocsti": ioctl(0x5412),
        "tioclinux": ioctl(0x541C),
        "tiocgwinsz": ioctl(0x5413),
        "dirty tiocsti": call(16, 0, 0x5412 | 1 << 32, 0),
        "x32 getpid": call(39 | 1 << 30),
        "unknown": call(1000),
        "keyctl": call(250, 0, -3, 0),
        "io_uring_setup": call(425, 0, 0),
        "personality": call(135, 0xFFFFFFFF),
        "no randomisation": call(135, 0x0040000),
        "netlink route": call(41, 16, 3, 0),
        "netlink xfrm": call(41, 16, 3, 6),
        "socketpair unix": call(53, 1, 1, 0, ctypes.addressof(ctypes.create_string_buffer(8))),
        "socketpair tipc": call(53, 30, 1, 0, ctypes.addressof(ctypes.create_string_buffer(8))),
        "i386": i386(),
        "status": [line for line in open("/proc/self/status") if line.startswith("Seccomp:")],
        "ns a call": round((time.perf_counter() - begun) / 20000 * 1e9),
    }
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
