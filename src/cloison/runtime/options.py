"""The words of a mount's options, sorted: what the mount takes, how it propagates, what the file system takes."""

from __future__ import annotations

from cloison.errors import Unsupported
from cloison.model.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.model.mount import Mount

# mount_setattr(2): what a word switches on, and the word that takes it back.
_CLEARS = {
    "rw": "ro", "suid": "nosuid", "dev": "nodev", "exec": "noexec", "atime": "noatime", "symfollow": "nosymfollow",
    "nostrictatime": "strictatime", "norelatime": "relatime", "diratime": "nodiratime",
}  # fmt: skip
_ATTRIBUTES = frozenset(_CLEARS.values())
_PROPAGATIONS = frozenset(kind for word in ("private", "slave", "shared", "unbindable") for kind in (word, f"r{word}"))
_ATIMES = ("noatime", "relatime", "strictatime")  # one field of the kernel: the last one wins
_SILENT = frozenset((
    "defaults", "bind", "rbind", "async", "noauto", "nofail", "user", "nouser", "loud", "silent", "copy-symlink",
))  # fmt: skip
# What whoever opened the mount's tree has done already
_DONE = frozenset(("src-nofollow", "dest-nofollow", "idmap", "ridmap", "tmpcopyup"))


class Options(Record):
    attributes: str = ""  # comma-separated
    propagation: str = ""  # "" is not said
    recursive: bool = False
    follow: bool = True  # a link as target leads on
    data: tuple[str, ...] = ()  # for the file system


def split_options(mount: Mount) -> Options:
    """Later words win over earlier ones, as with mount(8). Raises: Unsupported for a word that would get lost.

    The recursive words (``rro`` …, runtime-spec "Linux mount options") stay apart from the plain ones: they go for the
    mounts below, too, and what takes them back is the kernel's business, as it can be what the source had.
    """
    attributes: dict[str, None] = {}
    deep: dict[str, str] = {}
    propagation = ""
    data: list[str] = []
    for word in mount.options:
        if word in _PROPAGATIONS:
            propagation = word
        elif word in _ATTRIBUTES:
            _set_attribute(attributes, word)
        elif word in _CLEARS:
            attributes.pop(_CLEARS[word], None)
        elif word.startswith("r") and (word[1:] in _ATTRIBUTES or word[1:] in _CLEARS):
            deep.update((_deep_attribute(word[1:]),))
        elif word not in _SILENT and not (word in _DONE and mount.tree >= 0):
            data.append(word)
    if data and (mount.type == "bind" or not _DONE.isdisjoint(data)):
        raise Unsupported(f"mount option {data[0]!r} on {mount.target} is not supported")
    return Options(
        attributes=",".join((*deep.values(), *attributes)),
        propagation=propagation,
        recursive="rbind" in mount.options,
        follow="dest-nofollow" not in mount.options,
        data=tuple(data),
    )


def _set_attribute(attributes: dict[str, None], word: str) -> None:
    if word in _ATIMES:
        for other in _ATIMES:
            attributes.pop(other, None)
    attributes[word] = None


def _deep_attribute(word: str) -> tuple[str, str]:
    """What it is about, and the launcher's word for it; ``relatime`` is what remains without the other two."""
    subject = _CLEARS.get(word, word)
    if subject in _ATIMES:
        return "atime", f"r{word}" if word in _ATIMES else "rrelatime"
    return subject, f"r{word}"
