"""All modules that a call may need, compiled, in one file: a call imports sixty, and finding each costs 70 µs.

Here that is one `stat` and one `pread`. What the source says counts, as with the interpreter's own ``.pyc`` files: an
entry is used as long as the source has the size and the time of change that it had.
"""

from __future__ import annotations

import marshal
import os
import sys
from _frozen_importlib import ModuleSpec  # importlib.machinery costs 2 ms
from _frozen_importlib_external import MAGIC_NUMBER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

    Entry = tuple[str, int, int, int, int]  # source, its time of change (s) and size, place and length of the code

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_ROOMS = ("", "linux", "model", "oci", "oci_runtime", "runtime", "store")
_HEAD = len(MAGIC_NUMBER) + 4  # and the length of the index
_NO_REFERENCES = 2  # a version of marshal's format


def path() -> str:
    """Beside the interpreter's own compiled files, and for this interpreter alone."""
    return f"{_PACKAGE}/oci_runtime/__pycache__/all.{sys.implementation.cache_tag}.bytecode"


def use() -> None:
    """Import from the file from now on, if there is one and it is this interpreter's."""
    try:
        fd = os.open(path(), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    head = os.pread(fd, _HEAD, 0)
    if head[:-4] != MAGIC_NUMBER:
        os.close(fd)
        return
    index = marshal.loads(os.pread(fd, int.from_bytes(head[-4:], "little"), _HEAD))
    sys.meta_path.insert(0, _Finder(fd, index))


class _Finder:
    """Finder and loader in one (docs.python.org, "The import system"); the descriptor stays for the process's life."""

    def __init__(self, fd: int, index: dict[str, Entry]) -> None:
        self._fd = fd
        self._index = index

    def find_spec(self, name: str, *_where: object) -> Any:
        entry = self._index.get(name)
        if entry is None or _stamp(entry[0]) != entry[1:3]:
            return None
        loader: Any = self  # enough of one for the interpreter
        return ModuleSpec(name, loader, origin=entry[0], is_package=entry[0].endswith("/__init__.py"))

    def create_module(self, _spec: object) -> None:
        """The usual kind."""

    def exec_module(self, module: ModuleType) -> None:
        source, _, _, place, length = self._index[module.__name__]
        module.__file__ = source
        if hasattr(module, "__path__"):
            module.__path__.append(os.path.dirname(source))
        exec(marshal.loads(os.pread(self._fd, length, place)), module.__dict__)


def _stamp(source: str) -> tuple[int, int] | None:
    try:
        status = os.stat(source)
    except OSError:
        return None
    return int(status.st_mtime), status.st_size


def write() -> None:
    """Compile and write the file. Raises: Denied, Unavailable."""
    from cloison.store.atomic import write_file

    index: dict[str, Entry] = {}
    pieces: list[bytes] = []
    place = 0
    for name, source in _modules():
        stamp = _stamp(source)
        assert stamp is not None
        with open(source, "rb") as file:
            code = marshal.dumps(compile(file.read(), source, "exec", dont_inherit=True))
        index[name] = (source, *stamp, place, len(code))
        pieces.append(code)
        place += len(code)
    # Places are counted from the file's start, and an index without references is as long whatever they are
    first = _HEAD + len(marshal.dumps(index, _NO_REFERENCES))
    index = {name: (*entry[:3], entry[3] + first, entry[4]) for name, entry in index.items()}
    text = marshal.dumps(index, _NO_REFERENCES)
    os.makedirs(os.path.dirname(path()), exist_ok=True)
    head = MAGIC_NUMBER + len(text).to_bytes(4, "little")
    write_file(path(), b"".join((head, text, *pieces)), durable=False, mode=0o644)


def _modules() -> list[tuple[str, str]]:
    """(name, source) of every module that a verb may import."""
    found = []
    for room in _ROOMS:
        directory, prefix = (f"{_PACKAGE}/{room}", f"cloison.{room}") if room else (_PACKAGE, "cloison")
        for file in sorted(os.listdir(directory)):
            stem = file.removesuffix(".py")
            if stem != file:
                found.append((prefix if stem == "__init__" else f"{prefix}.{stem}", f"{directory}/{file}"))
    return found
