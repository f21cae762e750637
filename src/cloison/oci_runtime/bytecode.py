"""Writes all modules that a call may need, compiled, to one file; `cloison.oci_runtime.preload` says why, and reads it.

What only readers and type checkers need is left out before that: annotations, but for those of classes, which are the
fields of records, and docstrings. Assertions stay.
"""

from __future__ import annotations
import __future__

import ast
import functools
import marshal
import os
import sys
from importlib.util import MAGIC_NUMBER

from cloison.store.atomic import write_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType

    from cloison.oci_runtime.preload import Chapter, Place, Stamp

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_ROOMS = ("", "linux", "model", "oci", "oci_runtime", "runtime", "store")
_PRELOAD = "cloison.oci_runtime.preload"
_STATE = "oci_runtime.main oci_runtime.lifecycle"
_LAUNCH = (
    "oci_runtime.bundle oci_runtime.descriptors oci_runtime.streams runtime.labels linux.paths "
    "linux.seccomp_flags runtime.seccomp_cache"
)
_CREATE = f"{_STATE} {_LAUNCH} oci_runtime.creating oci_runtime.fitting runtime.defaults runtime.sysctls"
# What is imported in functions, and has to be named here; what that imports follows by itself
CHAPTERS = {
    "state": _STATE,
    "start": f"{_STATE} oci_runtime.starting",
    "kill": f"{_STATE} oci_runtime.ending",
    "delete": f"{_STATE} oci_runtime.ending",
    "create": _CREATE,
    "run": f"{_CREATE} oci_runtime.foreground oci_runtime.starting oci_runtime.ending",
    "exec": f"oci_runtime.main oci_runtime.exec_verb {_LAUNCH} oci_runtime.executing oci_runtime.foreground",
}


def path() -> str:
    """Beside the interpreter's own compiled files, and for this interpreter alone."""
    return f"{_PACKAGE}/oci_runtime/__pycache__/all.{sys.implementation.cache_tag}.bytecode"


def starter() -> str:
    """Lines of a script, after ``import sys``, that use the file if there is one and it is this interpreter's."""
    return (
        "import posix\nfrom _frozen_importlib_external import MAGIC_NUMBER\nfrom marshal import loads\n\n"
        f"path = {path()!r}\n"
        "try:\n    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)\nexcept OSError:\n    head = b''\n"
        f"else:\n    head = posix.read(fd, {_HEAD})\n    posix.close(fd)\n"
        "if head[:4] == MAGIC_NUMBER:\n"
        "    code, chapters, index = loads(memoryview(head)[4:])\n"
        "    preload = {'__name__': 'preload'}\n    exec(code, preload)\n"
        "    preload['preload'](path, sys.argv[1:], chapters=chapters, index=index)\n"
    )


def write() -> None:
    """Compile and write the file: magic number, head, and what is read by its place. Raises: Denied, Unavailable."""
    modules = dict(_modules())
    codes = {name: _compile(source) for name, source in modules.items()}
    stamps = {name: _stamp(source) for name, source in modules.items()}
    file = _File()
    index = {name: (stamps[name], file.add(marshal.dumps(code))) for name, code in codes.items()}
    chapters: dict[str, Place] = {}
    for verb, words in CHAPTERS.items():
        names = chapter(words)
        content: Chapter = (names, tuple(stamps[name] for name in names), tuple(codes[name] for name in names))
        chapters[verb] = file.add(marshal.dumps(content))
    place = file.add(marshal.dumps(index))
    head = marshal.dumps((codes[_PRELOAD], chapters, place))
    assert len(head) < _HEAD - len(MAGIC_NUMBER)
    os.makedirs(os.path.dirname(path()), exist_ok=True)
    data = (MAGIC_NUMBER + head).ljust(_HEAD, b"\0") + b"".join(file.pieces)
    write_file(path(), data, durable=False, mode=0o644)


_HEAD = 16384  # bytes for what is read first


class _File:
    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self._end = _HEAD

    def add(self, piece: bytes) -> Place:
        self.pieces.append(piece)
        place = (self._end, len(piece))
        self._end += len(piece)
        return place


def _stamp(source: str) -> Stamp:
    status = os.stat(source)
    return source, int(status.st_mtime), status.st_size


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


def _parse(source: str) -> ast.Module:
    with open(source, "rb") as file:
        return ast.parse(file.read(), source)


# -- in which order


def chapter(words: str) -> tuple[str, ...]:
    """These modules of the package and what they import at once, in an order in which each finds what it imports."""
    sources = dict(_modules())
    order: dict[str, None] = {}
    for word in words.split():
        _append(f"cloison.{word}", sources, order=order, begun=set())
    return tuple(order)


def _append(name: str, sources: dict[str, str], *, order: dict[str, None], begun: set[str]) -> None:
    if name in order or name in begun or name not in sources:
        return
    begun.add(name)
    for parent in (name.rpartition(".")[0], *_imports(sources[name])):
        _append(parent, sources, order=order, begun=begun)
    order[name] = None


@functools.cache
def _imports(source: str) -> tuple[str, ...]:
    """What could be a module among the names that it imports while it is executed."""
    found: list[str] = []
    for node in _parse(source).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            found += (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))
    return tuple(found)


# -- with what is needed at run time


def _compile(source: str) -> CodeType:
    tree = ast.fix_missing_locations(_Stripper().visit(_parse(source)))
    flags = __future__.annotations.compiler_flag
    code: CodeType = compile(tree, source, "exec", flags=flags, dont_inherit=True)
    return code


class _Stripper(ast.NodeTransformer):
    """Takes out docstrings, annotations of arguments and variables, and what is for type checkers alone."""

    def __init__(self) -> None:
        self._fields: set[ast.AnnAssign] = set()  # of classes

    def visit_Module(self, node: ast.Module) -> ast.AST:
        return self._without_docstring(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        for part in node.body:
            if isinstance(part, ast.AnnAssign):
                self._fields.add(part)
        return self._without_docstring(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self._without_docstring(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node in self._fields:  # a record asks whether the annotation begins with ClassVar, and nothing else of it
            kind = "ClassVar" if ast.unparse(node.annotation).startswith("ClassVar") else "_"
            node.annotation = ast.Name(kind, ast.Load())
            return node
        if node.value is None:
            return ast.copy_location(ast.Pass(), node)
        return ast.copy_location(ast.Assign([node.target], self.visit(node.value)), node)

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        self.generic_visit(node)
        is_for_checkers = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        return node.orelse if is_for_checkers else node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
        return None if node.module == "__future__" else node

    def _without_docstring(self, node: ast.Module | ast.ClassDef | ast.FunctionDef) -> ast.AST:
        if ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
        self.generic_visit(node)
        node.body = node.body or [ast.Pass()]
        return node
