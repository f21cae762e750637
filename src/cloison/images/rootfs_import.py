"""`import`: a root file system, as a tar stream or a directory, becomes the one layer of an image."""

from __future__ import annotations

import os

from cloison.archive.decompress import CHUNK, decompress
from cloison.archive.layer_writer import write_tree
from cloison.archive.union import Union
from cloison.errors import InvalidArgument, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.archive.decompress import Readable
    from cloison.store.blobs import Blobs


def store_stream(stream: Readable, *, blobs: Blobs) -> str:
    """The stream as a blob of plain tar (it is unpacked, and so verified, by the engine); its digest.

    Raises: InvalidArgument when it is empty or damaged, Unavailable when the disk is full.
    """
    plain = decompress(stream)
    with blobs.collector() as out:
        while piece := plain.read(CHUNK):
            out.write(piece)
        if not out.written:
            raise InvalidArgument("cannot import", why="the archive is empty")
    return out.digest


def store_directory(path: str, *, blobs: Blobs) -> str:
    """A directory as a layer: the same files always give the same digest. Mounts below it are not entered.

    Raises: InvalidArgument when it is no directory, or cannot be read; Unavailable when it changes meanwhile.
    """
    try:
        with Union([path]) as tree, blobs.collector() as out:
            write_tree(tree, out)
        return out.digest
    except (EOFError, FileNotFoundError) as err:
        if not os.path.exists(path):
            raise InvalidArgument(f"open {path}", why="no such file or directory") from err
        raise Unavailable(f"cannot import {path}", why="its files changed while they were read") from err
    except OSError as err:
        raise InvalidArgument(f"cannot import {path}", why=os.strerror(err.errno or 0).lower()) from err
