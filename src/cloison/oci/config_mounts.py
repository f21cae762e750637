"""``mounts`` of a bundle's config.json -> `Mount` (runtime-spec config.md, "Mounts"), with crun's additions.

A mount that is to show other owners has their mappings when it leaves here, or the plain word ``idmap`` or ``ridmap``:
the container's own. crun's words are ``idmap=uids=0-1000-10#…;gids=…`` (id on disk, id shown, length).
"""

from __future__ import annotations

from cloison.model.mount import IdMapping, Mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloison.oci.fields import Fields
    from cloison.oci.runtime import Linux

IDMAP = frozenset(("idmap", "ridmap"))
# Words about the file system: mount(2) ignores them with MS_BIND, and callers send them along
_SUPERBLOCK = frozenset((
    "sync", "dirsync", "lazytime", "nolazytime", "iversion", "noiversion", "mand", "nomand", "remount",
))  # fmt: skip
_ENTRIES = 4096
_ID = (1 << 32) - 1


def parse_mappings(fields: Fields, name: str) -> tuple[IdMapping, ...]:
    """``uidMappings`` or ``gidMappings``. Raises: InvalidArgument."""
    return fields.objects(name, _mapping, limit=_ENTRIES)


def _mapping(fields: Fields) -> IdMapping:
    size = fields.whole("size", least=1, most=_ID)
    if size is None:
        raise fields.invalid("size", "is missing")
    return IdMapping(
        container_id=fields.whole("containerID", least=0, most=_ID) or 0,
        host_id=fields.whole("hostID", least=0, most=_ID) or 0,
        size=size,
    )


def absolute(path: str, bundle: str) -> str:
    """A path on the host: a relative one is the bundle's."""
    return path if path.startswith("/") else f"{bundle}/{path}"


def host_id(inside: int, mappings: Sequence[IdMapping]) -> int:
    """Who one of the container's ids is on the host: the same without mappings, -1 when they leave it out."""
    for mapping in mappings:
        if 0 <= inside - mapping.container_id < mapping.size:
            return mapping.host_id + inside - mapping.container_id
    return -1 if mappings else inside


def parse_mount(fields: Fields, *, bundle: str, linux: Linux) -> Mount:
    """``linux``: the container's own mappings, which crun's ``@`` is about. Raises: InvalidArgument."""
    target = fields.text("destination")
    if not target:
        raise fields.invalid("destination", "is empty")
    uids, gids = parse_mappings(fields, "uidMappings"), parse_mappings(fields, "gidMappings")
    # config.md: "If specified, it MUST be specified along with gidMappings"
    if bool(uids) != bool(gids):
        missing = "gidMappings" if uids else "uidMappings"
        raise fields.invalid(missing, "is missing: uidMappings and gidMappings go together")
    options = fields.texts("options")
    kind, source = fields.text("type", default=""), fields.text("source", default="")
    if not {"bind", "rbind"}.isdisjoint(options):
        kind = "bind"
        if not source:
            raise fields.invalid("source", "is missing: a bind mount needs one")
        source = absolute(source, bundle)
    elif not kind:
        raise fields.invalid("type", "is missing: only a bind mount has none")
    # config.md: "This value MUST be an absolute path"; of older bundles it is taken as if it were
    mount = Mount(
        type=kind, source=source, target=target if target.startswith("/") else f"/{target}", options=options,
        uid_mappings=uids, gid_mappings=gids,
    )  # fmt: skip
    return _with_idmap(fields, mount, linux)


def _with_idmap(fields: Fields, mount: Mount, linux: Linux) -> Mount:
    """Mappings alone are as good as ``idmap``; crun's words become mappings. Data of a bind mount goes nowhere."""
    words: list[str] = []
    changes: dict[str, tuple[IdMapping, ...]] = {}
    for word in mount.options:
        name, equals, text = word.partition("=")
        if name in IDMAP and equals:
            changes = _annotated(fields, text, linux)
            words.append(name)
        elif mount.type != "bind" or not (equals or word in _SUPERBLOCK):
            words.append(word)
    if mount.uid_mappings and IDMAP.isdisjoint(words):
        words.append("idmap")
    if not IDMAP.isdisjoint(words) and mount.type != "bind":
        raise fields.invalid("options", "has idmap, which goes with bind mounts alone")
    return mount.replace(options=tuple(words), **changes)


def _annotated(fields: Fields, text: str, linux: Linux) -> dict[str, tuple[IdMapping, ...]]:
    containers = {"uids": linux.uid_mappings, "gids": linux.gid_mappings}
    found: dict[str, tuple[IdMapping, ...]] = {}
    for part in text.split(";"):
        name, _, triplets = part.partition("=")
        if name not in containers:
            raise fields.invalid("options", f"has idmap with {part[:64]!r}, neither uids=… nor gids=…")
        found[name] = tuple(_triplet(fields, triplet, containers[name]) for triplet in triplets.split("#"))
    if len(found) != 2:
        raise fields.invalid("options", "has idmap with one of uids and gids: they go together")
    return {"uid_mappings": found["uids"], "gid_mappings": found["gids"]}


def _triplet(fields: Fields, text: str, container: Sequence[IdMapping]) -> IdMapping:
    """``ID-SHOWN-LENGTH``; with ``@`` in front SHOWN is one of the container's ids, else one of the host's."""
    numbers = text.removeprefix("@").split("-")
    if len(numbers) != 3 or not all(number.isascii() and number.isdigit() and len(number) < 11 for number in numbers):
        raise fields.invalid("options", f"has idmap with {text[:64]!r}, which is not ID-ID-LENGTH")
    stored, shown, size = map(int, numbers)
    if text.startswith("@"):
        shown = host_id(shown, container)
    if not (0 < size <= _ID and stored <= _ID and 0 <= shown <= _ID):
        raise fields.invalid("options", f"has idmap with {text[:64]!r}, which is out of range")
    return IdMapping(container_id=stored, host_id=shown, size=size)
