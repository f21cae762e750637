"""Who a command runs as, whatever an image's passwd and group say."""

from __future__ import annotations

import pytest

from cloison.engine.users import resolve_user
from cloison.errors import InvalidArgument

PASSWD = b"""root:x:0:0:root:/root:/bin/sh
# a comment
web:x:1000:1001::/home/web:/bin/sh
1000:x:0:0::/root:/bin/sh
broken
huge:x:4294967296:0::/:/bin/sh
\xff\xfe:x:5:5::/:/bin/sh
"""
GROUP = b"root:x:0:\nweb:x:1001:\naudio:x:29:web,other\nvideo:x:44:root\n"


def resolve(user: str, *groups: str) -> tuple[int, int, tuple[int, ...], str]:
    who = resolve_user(user, groups, passwd=PASSWD, group=GROUP)
    return who.uid, who.gid, who.additional_gids, who.home


def test_no_user_is_root_with_roots_groups() -> None:
    assert resolve("") == (0, 0, (44,), "/root")


def test_a_name_brings_its_group_home_and_memberships() -> None:
    assert resolve("web") == (1000, 1001, (29,), "/home/web")


def test_digits_are_always_a_uid_never_the_name_of_a_root_account() -> None:
    assert resolve("1000")[:2] == (1000, 1001)


def test_an_unknown_uid_has_group_zero_and_no_memberships() -> None:
    assert resolve("4242") == (4242, 0, (), "/")


def test_an_explicit_group_means_exactly_that_group() -> None:
    assert resolve("web:29") == (1000, 29, (), "/home/web")
    assert resolve("web:audio", "video", "7") == (1000, 29, (44, 7), "/home/web")


@pytest.mark.parametrize(
    "user",
    [
        "4294967295",
        "4294967296",
        "-1",
        "+0",
        "0x0",
        "1_000",
        "０",
        "١",
        "0 ",
        "0\n",
        ":0",
        "1:",
        "nobody",
        "web:none",
        "huge",
    ],
)
def test_what_is_no_user_is_refused(user: str) -> None:
    with pytest.raises(InvalidArgument):
        resolve(user)
