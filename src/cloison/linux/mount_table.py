"""What is mounted in a mount namespace, as the kernel lists it (proc_pid_mountinfo(5))."""

from __future__ import annotations

from cloison.model.record import Record


class Mounted(Record):
    id: int
    device: str  # "major:minor"
    root: str  # the part of the file system that is shown
    target: str
    options: str  # of the mount itself: "ro,nosuid,relatime"
    kind: str  # the file system's type


def read_mounts(path: str) -> list[Mounted]:
    """In the order in which they came to be. Raises: OSError."""
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return parse_mounts(file.read())


def parse_mounts(text: str) -> list[Mounted]:
    """The rows of a mountinfo file."""
    found = []
    for line in filter(None, text.split("\n")):
        fields = line.split(" ")
        after = fields.index("-", 6)
        found.append(
            Mounted(
                id=int(fields[0]), device=fields[2], root=_unescaped(fields[3]), target=_unescaped(fields[4]),
                options=fields[5], kind=fields[after + 1],
            )
        )  # fmt: skip
    return found


def _unescaped(text: str) -> str:
    """Blanks and the like come as octal numbers."""
    parts = text.split("\\")
    return parts[0] + "".join(chr(int(part[:3], 8)) + part[3:] for part in parts[1:])
