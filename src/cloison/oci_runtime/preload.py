"""What a call runs before anything else: the modules of its verb, from one file (`cloison.oci_runtime.bytecode`).

Sixty modules that Python finds, one after the other, cost as much as the interpreter's own start. So those that a verb
needs as a rule lie side by side, the imported before the importing, and are executed in this order without asking the
import system; a finder serves the others.

This module stands in that file too, and is executed from there: it must not import from the package.
"""

from __future__ import annotations

import gc
import marshal
import posix
import sys
from _frozen_importlib import ModuleSpec  # importlib.machinery costs 2 ms

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import CodeType, ModuleType
    from typing import Any

    Stamp = tuple[str, int, int]  # a source, its time of change in seconds, its size
    Chapter = tuple[tuple[str, ...], tuple[Stamp, ...], tuple[CodeType, ...]]
    Place = tuple[int, int]  # in the file, and length
else:
    ModuleType = type(sys)  # `types` costs a third of a millisecond


def preload(path: str, words: Sequence[str], *, chapters: Mapping[str, Place], index: Place) -> None:
    """Import what the verb among ``words`` is known to need, and let the rest be found in the file, too.

    Which word is the verb is a guess: what is missing then is found later, what is too much does nothing.
    """
    sys.modules["os"] = _Os("os")
    import posixpath

    sys.modules["os.path"] = posixpath
    sys.meta_path.insert(0, _Finder(path, index))
    place = next((chapters[word] for word in words if word in chapters), None)
    if place is None:
        return
    gc.disable()  # nothing of this is garbage
    try:
        _execute(marshal.loads(_read(path, place)))
    finally:
        gc.enable()


def _execute(chapter: Chapter) -> None:
    names, stamps, codes = chapter
    if not all(map(_is_current, stamps)):
        return
    modules = sys.modules
    for name, stamp, code in zip(names, stamps, codes):  # noqa: B905  # they were made together
        module = modules[name] = ModuleType(name)
        _describe(module, stamp[0], is_package=stamp[0].endswith("/__init__.py"))
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(modules[parent], child, module)
        exec(code, module.__dict__)


def _describe(module: ModuleType, source: str, *, is_package: bool) -> None:
    module.__file__ = source
    if is_package:
        module.__path__ = [source.rpartition("/")[0]]


def _is_current(stamp: Stamp) -> bool:
    """What the source says counts, as with the interpreter's own ``.pyc`` files."""
    try:
        status = posix.stat(stamp[0])
    except OSError:
        return False
    return int(status.st_mtime) == stamp[1] and status.st_size == stamp[2]


def _read(path: str, place: Place) -> bytes:
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        return posix.pread(fd, place[1], place[0])
    finally:
        posix.close(fd)


class _Finder:
    """Finder and loader in one (docs.python.org, "The import system")."""

    def __init__(self, path: str, index: Place) -> None:
        self._path = path
        self._place = index
        self._index: dict[str, tuple[Stamp, Place]] | None = None

    def find_spec(self, name: str, *_where: object) -> Any:
        if not name.startswith("cloison"):
            return None
        if self._index is None:
            self._index = marshal.loads(_read(self._path, self._place))
        stamp, _ = self._index.get(name) or (None, None)
        if stamp is None or not _is_current(stamp):
            return None
        loader: Any = self  # enough of one for the interpreter
        return ModuleSpec(name, loader, origin=stamp[0], is_package=stamp[0].endswith("/__init__.py"))

    def create_module(self, _spec: object) -> None:
        """The usual kind."""

    def exec_module(self, module: ModuleType) -> None:
        assert self._index is not None  # it has found the module
        (source, _, _), place = self._index[module.__name__]
        _describe(module, source, is_package=hasattr(module, "__path__"))
        exec(marshal.loads(_read(self._path, place)), module.__dict__)


class _Os(ModuleType):
    """The module ``os``, as far as it is the interpreter's own; the first other name brings the whole of it.

    That costs 1.3 ms, for abstract base classes that its environment is derived from.
    """

    def __getattr__(self, name: str) -> object:
        if name == "environ":  # to be read; who writes to it has to import `os` himself
            return {_fsdecode(key): _fsdecode(value) for key, value in posix.environ.items()}
        if name == "path":
            value: object = sys.modules["os.path"]
        elif name in _OWN:
            value = _OWN[name]
        elif name in vars(posix):
            value = getattr(posix, name)
        elif name == "__path__":  # asked by the import system
            raise AttributeError("'os' is not a package")
        else:
            value = getattr(self._whole(), name)
        setattr(self, name, value)
        return value

    def _whole(self) -> ModuleType:
        del sys.modules["os"]
        import os

        self.__dict__.update(os.__dict__)
        return os


def _fsencode(name: Any) -> bytes:
    path = posix.fspath(name)
    return path if isinstance(path, bytes) else path.encode(sys.getfilesystemencoding(), _ERRORS)


def _fsdecode(name: Any) -> str:
    path = posix.fspath(name)
    return path if isinstance(path, str) else path.decode(sys.getfilesystemencoding(), _ERRORS)


_ERRORS = sys.getfilesystemencodeerrors()
_OWN = {"fsencode": _fsencode, "fsdecode": _fsdecode, "SEEK_SET": 0, "name": "posix"}
