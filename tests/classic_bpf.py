"""An interpreter of classic BPF as seccomp runs it (linux/filter.h): filters can be asked without loading them."""

from __future__ import annotations

import struct
from collections.abc import Sequence

X86_64 = 0xC000003E
I386 = 0x40000003
AARCH64 = 0xC00000B7
ARM = 0x40000028


def parse(program: bytes) -> list[tuple[int, int, int, int]]:
    """The instructions: (code, jump if true, jump if false, constant)."""
    assert len(program) % 8 == 0
    return [struct.unpack_from("<HBBI", program, at) for at in range(0, len(program), 8)]


def run(
    program: Sequence[tuple[int, int, int, int]], number: int, *, arch: int = X86_64, args: Sequence[int] = ()
) -> int:
    """What the filter answers to one call. Fails on anything that the kernel's checker would refuse."""
    padded = [*args, 0, 0, 0, 0, 0, 0][:6]
    data = struct.pack("<IIQ6Q", number & 0xFFFFFFFF, arch, 0x7F00_0000_1000, *(a & (1 << 64) - 1 for a in padded))
    accumulator = at = 0
    for _step in range(len(program) + 1):
        code, true, false, constant = program[at]
        at += 1
        if code == 0x20:
            assert constant % 4 == 0 and constant + 4 <= len(data)
            (accumulator,) = struct.unpack_from("<I", data, constant)
        elif code == 0x54:
            accumulator &= constant
        elif code == 0x05:
            at += constant
        elif code == 0x15:
            at += true if accumulator == constant else false
        elif code == 0x25:
            at += true if accumulator > constant else false
        elif code == 0x35:
            at += true if accumulator >= constant else false
        elif code == 0x45:
            at += true if accumulator & constant else false
        elif code == 0x06:
            return constant
        else:
            raise AssertionError(f"unknown instruction {code:#x}")
    raise AssertionError("the program does not end")
