"""The device filter's program, run by an interpreter of the few instructions that it uses."""

from __future__ import annotations

import struct

import pytest

from cloison.errors import InvalidArgument
from cloison.linux.device_filter import compile_rules
from cloison.oci.runtime import DeviceRule

BLOCK, CHAR = 1, 2
MKNOD, READ, WRITE = 1, 2, 4
NULL = (CHAR, 1, 3)
DISK = (BLOCK, 8, 0)


def allowed(program: bytes, device: tuple[int, int, int], access: int) -> bool:
    """Run the program on struct bpf_cgroup_dev_ctx, as the kernel does when a device is opened or made."""
    kind, major, minor = device
    context = struct.pack("<III", access << 16 | kind, major, minor)
    code = [struct.unpack_from("<BBhi", program, at) for at in range(0, len(program), 8)]
    registers: list[int | None] = [None] * 11
    at = 0
    while True:
        opcode, pair, offset, constant = code[at]
        target, source = pair & 15, pair >> 4
        at += 1
        value = registers[target]
        if opcode == 0x61:
            assert source == 1 and offset in (0, 4, 8)
            (registers[target],) = struct.unpack_from("<I", context, offset)
        elif opcode == 0xB7:
            registers[target] = constant
        elif opcode == 0xBF:
            registers[target] = registers[source]
        elif opcode == 0x95:
            assert value is not None
            return bool(value)
        else:
            assert value is not None, "a register is read before it is written"
            if opcode == 0x57:
                registers[target] = value & constant
            elif opcode == 0x77:
                registers[target] = value >> constant
            elif opcode == 0x15:
                at += offset if value == constant else 0
            elif opcode == 0x55:
                at += offset if value != constant else 0
            else:
                raise AssertionError(f"unknown instruction {opcode:#x}")


def rule(allow: bool, **keys: object) -> DeviceRule:
    return DeviceRule(allow=allow, **keys)


def test_without_rules_nothing_is_allowed() -> None:
    assert not allowed(compile_rules(()), NULL, READ)


def test_an_allow_list_lets_its_devices_through_and_no_other() -> None:
    program = compile_rules((rule(False), rule(True, type="c", major=1, minor=3), rule(True, type="c", major=136)))
    for access in range(1, 8):
        assert allowed(program, NULL, access)
        assert allowed(program, (CHAR, 136, 77), access)
        for other in ((BLOCK, 1, 3), (CHAR, 1, 4), (CHAR, 2, 3), DISK):
            assert not allowed(program, other, access)


def test_the_last_rule_that_fits_decides() -> None:
    rules = (rule(False), rule(True, type="b", major=8), rule(False, type="b", major=8, minor=0))
    assert not allowed(compile_rules(rules), DISK, READ)
    assert allowed(compile_rules(rules), (BLOCK, 8, 1), READ)
    assert allowed(compile_rules((*rules, rule(True))), DISK, READ)


def test_an_allowed_access_covers_what_is_asked_or_nothing() -> None:
    program = compile_rules((rule(False), rule(True, type="c", major=1, minor=3, access="rm")))
    answers = {access: allowed(program, NULL, access) for access in range(1, 8)}
    assert {access for access, answer in answers.items() if answer} == {READ, MKNOD, READ | MKNOD}


def test_a_denied_access_is_denied_in_company_too() -> None:
    program = compile_rules((rule(True), rule(False, type="b", access="w")))
    answers = {access: allowed(program, DISK, access) for access in range(1, 8)}
    assert {access for access, answer in answers.items() if not answer} == {WRITE, WRITE | READ, WRITE | MKNOD, 7}
    assert allowed(program, NULL, WRITE)


def test_any_device_with_one_access_is_a_rule() -> None:
    program = compile_rules((rule(False), rule(True, access="m")))
    assert allowed(program, DISK, MKNOD)
    assert not allowed(program, DISK, READ)


def test_no_instruction_is_out_of_reach() -> None:
    # the kernel's verifier refuses a program with dead code
    whole = compile_rules((rule(True, type="c", major=1, minor=3), rule(False)))
    assert whole == compile_rules((rule(False),))


@pytest.mark.parametrize("keys", [{"type": "x"}, {"access": "rx"}])
def test_a_senseless_rule_is_refused(keys: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument):
        compile_rules((rule(True, **keys),))
