"""Ownership of descriptors."""

from __future__ import annotations

import os

import pytest

from cloison.linux.fd import Fd


def is_open(number: int) -> bool:
    return os.path.exists(f"/proc/self/fd/{number}")


def opened() -> int:
    return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)


def test_a_descriptor_is_closed_at_the_end_of_its_block() -> None:
    with Fd(opened()) as fd:
        number = fd.fileno()
        assert is_open(number)
    assert fd.number == -1
    assert not is_open(number)


def test_a_descriptor_is_closed_when_the_block_fails() -> None:
    number = opened()
    with pytest.raises(RuntimeError), Fd(number):
        raise RuntimeError
    assert not is_open(number)


def test_closing_twice_does_not_close_a_strangers_descriptor() -> None:
    fd = Fd(opened())
    number = fd.number
    fd.close()
    stranger = opened()
    assert stranger == number  # the kernel gives out the lowest free one
    fd.close()
    assert is_open(stranger)
    os.close(stranger)


def test_a_taken_descriptor_stays_open() -> None:
    with Fd(opened()) as fd:
        number = fd.take()
    assert is_open(number)
    os.close(number)
    with pytest.raises(ValueError, match="closed"):
        fd.take()


def test_a_forgotten_owner_closes() -> None:
    fd = Fd(opened())
    number = fd.number
    del fd
    assert not is_open(number)
