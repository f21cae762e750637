"""Capabilities by name and number."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloison.errors import InvalidArgument
from cloison.linux.capabilities import ALL, CAPABILITIES, mask_of, names_in, normalise


def test_names_stand_at_their_kernel_numbers() -> None:
    known = {
        "CAP_CHOWN": 0,
        "CAP_NET_ADMIN": 12,
        "CAP_SYS_ADMIN": 21,
        "CAP_AUDIT_READ": 37,
        "CAP_CHECKPOINT_RESTORE": 40,
    }
    assert {name: CAPABILITIES.index(name) for name in known} == known
    assert len(CAPABILITIES) == len(set(CAPABILITIES)) == 41


def test_this_kernel_knows_no_capability_that_we_do_not() -> None:
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    assert last < len(CAPABILITIES)


@pytest.mark.parametrize("name", ["net_admin", "NET_ADMIN", "CAP_NET_ADMIN", "cap_net_admin", "Cap_Net_Admin"])
def test_a_name_is_known_in_every_spelling(name: str) -> None:
    assert normalise(name) == "CAP_NET_ADMIN"


@pytest.mark.parametrize("name", ["all", "ALL", "CAP_ALL"])
def test_all_is_a_word_of_its_own(name: str) -> None:
    assert normalise(name) == ALL
    assert mask_of([name]) == (1 << 41) - 1


@pytest.mark.parametrize("name", ["", "CAP_", "NET", "CAP_CAP_CHOWN", "NET_ADMIN ", "ſys_admin"])
def test_an_unknown_name_is_refused_with_a_hint(name: str) -> None:
    with pytest.raises(InvalidArgument, match="unknown capability") as caught:
        normalise(name)
    assert caught.value.hint


def test_a_mask_and_its_names_are_the_same_thing() -> None:
    for bit, name in enumerate(CAPABILITIES):
        assert mask_of([name]) == 1 << bit
        assert names_in(1 << bit) == (name,)
    assert mask_of(()) == 0
    assert names_in(mask_of(["kill", "CHOWN"])) == ("CAP_CHOWN", "CAP_KILL")
