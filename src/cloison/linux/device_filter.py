"""The device allow-list of control groups version 2: a BPF program, assembled here and attached to the group.

Rules are read as on version 1: the last one that fits decides, and what none fits is denied. Sources: kernel
bpf.h (struct bpf_cgroup_dev_ctx, enum bpf_cmd), bpf(2), Documentation/bpf/standardization/instruction-set.rst.
"""

from __future__ import annotations

import errno
import os
import struct

from cloison.errors import Denied, InvalidArgument, Unsupported
from cloison.linux.libc import BPF, address_of, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.oci.runtime import DeviceRule

_INSTRUCTION = struct.Struct("<BBhi")  # opcode, source << 4 | destination, jump, constant

# Opcodes: class | operation | source.
_LOAD_32 = 0x61  # dst = *(u32 *)(src + off)
_MOVE = 0xB7  # dst = constant
_MOVE_REGISTER = 0xBF
_AND = 0x57
_SHIFT_RIGHT = 0x77
_JUMP_EQUAL = 0x15
_JUMP_NOT_EQUAL = 0x55
_EXIT = 0x95

# Registers: r1 is the context on entry and scratch afterwards.
_RESULT, _SCRATCH, _TYPE, _ACCESS, _MAJOR, _MINOR = range(6)

_ACCESS_BITS = {"m": 1, "r": 2, "w": 4}
_ALL_ACCESS = 7
_TYPES = {"b": 1, "c": 2, "u": 2}

_PROG_LOAD = 5
_PROG_ATTACH = 8
_PROG_TYPE_CGROUP_DEVICE = 15
_ATTACH_CGROUP_DEVICE = 6
_ALLOW_MULTI = 2  # a filter of a group further up still has its say, and we do not replace somebody's
_LOAD_ATTRIBUTES = struct.Struct("=IIQQIIQII16s")
_ATTACH_ATTRIBUTES = struct.Struct("=IIII")


def compile_rules(rules: tuple[DeviceRule, ...]) -> bytes:
    """The program for these rules: eBPF instructions, 8 bytes each. Pure. Raises: InvalidArgument."""
    code = [
        _instruction(_LOAD_32, _TYPE, source=1, offset=0),
        _instruction(_MOVE_REGISTER, _ACCESS, source=_TYPE),
        _instruction(_AND, _TYPE, constant=0xFFFF),
        _instruction(_SHIFT_RIGHT, _ACCESS, constant=16),
        _instruction(_LOAD_32, _MAJOR, source=1, offset=4),
        _instruction(_LOAD_32, _MINOR, source=1, offset=8),
    ]
    for rule in reversed(rules):
        if rule.type == "p":  # a pipe is no device
            continue
        tests = _tests(rule)
        code += _block(tests, verdict=int(rule.allow))
        if not tests:  # it fits everything: the verifier refuses instructions that cannot be reached
            break
    else:
        code += _verdict(0)
    return b"".join(code)


def attach(directory: str, rules: tuple[DeviceRule, ...]) -> None:
    """Load the program for these rules and attach it to a version 2 group; it lives as long as the group.

    Raises: Denied, Unsupported, InvalidArgument.
    """
    program = compile_rules(rules)
    group = -1
    loaded = -1
    try:
        group = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        loaded = _load(program)
        attributes = bytearray(_ATTACH_ATTRIBUTES.pack(group, loaded, _ATTACH_CGROUP_DEVICE, _ALLOW_MULTI))
        syscall(_bpf_number(), _PROG_ATTACH, address_of(attributes), len(attributes))
    except OSError as err:
        raise _refusal(directory, err) from err
    finally:
        for fd in (group, loaded):
            if fd >= 0:
                os.close(fd)


def _load(program: bytes) -> int:
    instructions = bytearray(program)
    licence = bytearray(b"Apache-2.0\0")  # no helper function that asks for the GPL is called
    count = len(program) // _INSTRUCTION.size
    attributes = bytearray(
        _LOAD_ATTRIBUTES.pack(
            _PROG_TYPE_CGROUP_DEVICE, count, address_of(instructions), address_of(licence), 0, 0, 0, 0, 0, b"cloison"
        )
    )
    return syscall(_bpf_number(), _PROG_LOAD, address_of(attributes), len(attributes))


def _bpf_number() -> int:
    machine = os.uname().machine
    if machine not in BPF:
        raise Unsupported("cannot restrict devices", why=f"the number of bpf(2) on {machine} is not known")
    return BPF[machine]


def _refusal(directory: str, err: OSError) -> Denied | Unsupported:
    what = f"cannot restrict the devices of {directory}"
    why = f"bpf(2): {os.strerror(err.errno or 0).lower()}"
    if err.errno in (errno.EPERM, errno.EACCES):
        return Denied(what, why=why, hint="run as root: a device filter needs CAP_SYS_ADMIN")
    return Unsupported(what, why=why, hint="use a kernel with CONFIG_CGROUP_BPF")


def _tests(rule: DeviceRule) -> list[tuple[int, int, int]]:
    """What must hold for the rule to fit: (jump opcode that leaves the rule, register, constant)."""
    tests: list[tuple[int, int, int]] = []
    if rule.type != "a":
        if rule.type not in _TYPES:
            raise InvalidArgument(f"invalid device type {rule.type!r}", hint="use a, b or c")
        tests.append((_JUMP_NOT_EQUAL, _TYPE, _TYPES[rule.type]))
    if rule.major is not None:
        tests.append((_JUMP_NOT_EQUAL, _MAJOR, rule.major))
    if rule.minor is not None:
        tests.append((_JUMP_NOT_EQUAL, _MINOR, rule.minor))
    access = _access_mask(rule.access)
    if access != _ALL_ACCESS and rule.allow:
        # Allowed when nothing is asked for beyond the rule, …
        tests.append((_JUMP_NOT_EQUAL, _SCRATCH, _ALL_ACCESS & ~access))
    elif access != _ALL_ACCESS:
        # … denied when anything is asked for that the rule names.
        tests.append((_JUMP_EQUAL, _SCRATCH, access))
    return tests


def _access_mask(access: str) -> int:
    mask = 0
    for letter in access:
        if letter not in _ACCESS_BITS:
            raise InvalidArgument(f"invalid device access {access!r}", hint="use any of r, w and m")
        mask |= _ACCESS_BITS[letter]
    return mask


def _block(tests: list[tuple[int, int, int]], *, verdict: int) -> list[bytes]:
    """The rule's tests and its verdict; a test that does not hold jumps behind the block."""
    block = _verdict(verdict)
    for opcode, register, constant in reversed(tests):
        if register == _SCRATCH:  # compare the masked access with nothing
            leave = _instruction(opcode, _SCRATCH, offset=len(block))
            mask = _instruction(_AND, _SCRATCH, constant=constant)
            block = [_instruction(_MOVE_REGISTER, _SCRATCH, source=_ACCESS), mask, leave, *block]
        else:
            block = [_instruction(opcode, register, offset=len(block), constant=constant), *block]
    return block


def _verdict(allowed: int) -> list[bytes]:
    return [_instruction(_MOVE, _RESULT, constant=allowed), _instruction(_EXIT)]


def _instruction(opcode: int, destination: int = 0, *, source: int = 0, offset: int = 0, constant: int = 0) -> bytes:
    return _INSTRUCTION.pack(opcode, source << 4 | destination, offset, constant)
