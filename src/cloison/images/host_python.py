"""Python 3 in an image from this machine: the interpreter's standard library without its tests and desktop parts."""

from __future__ import annotations

import os
import posixpath

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.images.host import HostTree

# nothing here works without a desktop, a compiler or a network install; the tests alone are a third of the size
_LEFT_OUT = frozenset(
    "test tests idlelib tkinter turtledemo ensurepip lib2to3 site-packages dist-packages pydoc_data turtle.py".split()
)


def add_standard_library(tree: HostTree, interpreter: str) -> None:
    """The library next to ``interpreter`` (``/usr/bin/python3.11`` -> ``/usr/lib/python3.11``)."""
    prefix = posixpath.dirname(posixpath.dirname(interpreter))
    name = posixpath.basename(interpreter)
    for library in (f"{prefix}/lib/{name}", f"{prefix}/lib64/{name}"):
        if os.path.isfile(f"{library}/os.py"):
            tree.add_tree(library, skip=_is_left_out)


def _is_left_out(directory: str, name: str) -> bool:
    if name in _LEFT_OUT or name.startswith("config-"):
        return True
    if posixpath.basename(directory) != "__pycache__":
        return name.endswith((".a", ".exe"))
    # one compiled form is enough, and none for a module that stays behind
    return ".opt-" in name or name.partition(".")[0] + ".py" in _LEFT_OUT
