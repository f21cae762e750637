"""Who the command runs as: ``-u``, the image's USER, and what its /etc/passwd and /etc/group say of them.

The image's files are hostile text: bounded before they come here, numbers are ASCII digits only, and an all-digit name
is always a number, so that no line of passwd can turn ``-u 1000`` into root (CVE-2016-3697).
"""

from __future__ import annotations

from cloison.errors import InvalidArgument
from cloison.model.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_MAX_ID = 2**31 - 1  # containerd's bound; above it, 32-bit arithmetic somewhere wraps (CVE-2024-40635)
_DIGITS = frozenset("0123456789")


class Identity(Record):
    uid: int
    gid: int
    additional_gids: tuple[int, ...]
    home: str
    name: str = ""


class _Account(Record):
    name: str
    uid: int
    gid: int
    home: str


class _Group(Record):
    name: str
    gid: int
    members: tuple[str, ...]


def resolve_user(user: str, groups: Sequence[str], *, passwd: bytes, group: bytes) -> Identity:
    """``user`` is "", "name", "uid", "name:group", "uid:gid"; ``groups`` are ``--group-add``'s.

    Raises: InvalidArgument in Docker's words when a name is unknown.
    """
    who, colon, which = user.partition(":")
    if user and (not who or (colon and not which)):
        raise InvalidArgument(f"invalid user: {user!r}", why="it is not name|uid[:group|gid]")
    account = _find_account(who, passwd)
    names = {name for name in (which, *groups, account.name if account else "") if name and not is_number(name)}
    known = tuple(_groups(group, names)) if names else ()
    uid = account.uid if account else parse_id(who or "0")
    gid = _group_id(which, known) if which else (account.gid if account else 0)
    # an explicit group means exactly that group: Docker adds no memberships then
    memberships = [g.gid for g in known if account and account.name in g.members] if not which else []
    added = [_group_id(name, known) for name in groups]
    extra = tuple(dict.fromkeys(g for g in (*memberships, *added) if g != gid))
    home = account.home if account and account.home else "/"
    return Identity(uid=uid, gid=gid, additional_gids=extra, home=home, name=account.name if account else "")


def is_number(text: str) -> bool:
    return bool(text) and _DIGITS.issuperset(text)


def parse_id(text: str) -> int:
    """A uid or gid. Raises: InvalidArgument above 2**31-1 or when it is no plain number."""
    if not is_number(text) or len(text) > 10 or int(text) > _MAX_ID:
        raise InvalidArgument(f"invalid user or group id: {text!r}", why=f"uids and gids must be in range 0-{_MAX_ID}")
    return int(text)


def _find_account(who: str, passwd: bytes) -> _Account | None:
    wanted = who or "0"
    for account in _accounts(passwd):
        if (account.uid == parse_id(wanted)) if is_number(wanted) else (account.name == wanted):
            return account
    if is_number(wanted):
        return None
    raise InvalidArgument(
        f"unable to find user {wanted}",
        why="no matching entries in passwd file",
        hint="give a numeric uid, or add the user",
    )


def _group_id(name: str, known: Sequence[_Group]) -> int:
    if is_number(name):
        return parse_id(name)
    for group in known:
        if group.name == name:
            return group.gid
    raise InvalidArgument(f"unable to find group {name}", why="no matching entries in group file")


def _accounts(passwd: bytes) -> Iterator[_Account]:
    for fields in _lines(passwd):
        if len(fields) >= 4 and _usable(fields[2]) and _usable(fields[3]):
            home = fields[5] if len(fields) > 5 and fields[5].startswith("/") else ""
            yield _Account(name=fields[0], uid=int(fields[2]), gid=int(fields[3]), home=home)


def _groups(group: bytes, names: set[str]) -> Iterator[_Group]:
    """The groups whose line mentions one of these names: as their own, or among their members."""
    wanted = [name.encode("utf-8", "surrogateescape") for name in names]
    for line in group.split(b"\n"):
        if any(name in line for name in wanted):
            for fields in _lines(line):
                if len(fields) >= 3 and _usable(fields[2]):
                    members = fields[3].split(",") if len(fields) > 3 else []
                    yield _Group(name=fields[0], gid=int(fields[2]), members=tuple(m.strip() for m in members))


def _usable(number: str) -> bool:
    return is_number(number) and len(number) <= 10 and int(number) <= _MAX_ID


def _lines(text: bytes) -> Iterator[list[str]]:
    for line in text.split(b"\n"):
        if line and not line.startswith(b"#") and b"\0" not in line:
            yield line.decode("utf-8", "replace").strip().split(":")
