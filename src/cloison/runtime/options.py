"""The words of a mount's options, sorted: what the mount takes, how it propagates, what the file system takes."""

from __future__ import annotations

from cloison.errors import Unsupported
from cloison.model.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.model.mount import Mount

# mount_setattr(2): what a word switches on, and the word that takes it back. The recursive forms (rro …, runtime-spec
# "Linux mount options") are the same to us: attributes of a recursive bind go to every mount below it.
_CLEARS = {
    "rw": "ro", "suid": "nosuid", "dev": "nodev", "exec": "noexec", "atime": "noatime", "symfollow": "nosymfollow",
    "nostrictatime": "strictatime", "norelatime": "relatime", "diratime": "nodiratime",
}  # fmt: skip
_ATTRIBUTES = frozenset(_CLEARS.values())
_PROPAGATIONS = frozenset(kind for word in ("private", "slave", "shared", "unbindable") for kind in (word, f"r{word}"))
_ATIMES = ("noatime", "relatime", "strictatime")  # one field of the kernel: the last one wins
_SILENT = frozenset(("defaults", "bind", "rbind", "async", "noauto", "nofail", "user", "nouser", "loud", "silent"))


class Options(Record):
    attributes: str = ""  # comma-separated
    propagation: str = ""  # "" is not said
    recursive: bool = False
    data: tuple[str, ...] = ()  # for the file system


def split_options(mount: Mount) -> Options:
    """Later words win over earlier ones, as with mount(8). Raises: Unsupported for a word that would get lost."""
    attributes: dict[str, None] = {}
    propagation = ""
    data: list[str] = []
    recursive = False
    for word in mount.options:
        plain = word[1:] if word.startswith("r") and (word[1:] in _ATTRIBUTES or word[1:] in _CLEARS) else word
        if word in _PROPAGATIONS:
            propagation = word
        elif plain in _ATTRIBUTES:
            _set_attribute(attributes, plain)
        elif plain in _CLEARS:
            attributes.pop(_CLEARS[plain], None)
        elif word in _SILENT:
            recursive = recursive or word == "rbind"
        elif mount.type == "bind" or word in ("idmap", "ridmap", "tmpcopyup"):
            raise Unsupported(f"mount option {word!r} on {mount.target} is not supported")
        else:
            data.append(word)
    return Options(attributes=",".join(attributes), propagation=propagation, recursive=recursive, data=tuple(data))


def _set_attribute(attributes: dict[str, None], word: str) -> None:
    if word in _ATIMES:
        for other in _ATIMES:
            attributes.pop(other, None)
    attributes[word] = None
