"""`import`: a root file system, as a tar stream or a directory, becomes the one layer of an image."""

from __future__ import annotations

import os

from cloison.archive.decompress import CHUNK, decompress
from cloison.archive.layer_writer import write_tree
from cloison.archive.union import Union
from cloison.errors import InvalidArgument, Unavailable
from cloison.images.layout import store_layer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.archive.decompress import Readable
    from cloison.archive.writer import Writable
    from cloison.images.layout import Layer
    from cloison.store.blobs import Blobs


def store_stream(stream: Readable, *, blobs: Blobs) -> Layer:
    """The stream, compressed or not, as a layer (it is unpacked, and so verified, by the engine).

    Raises: InvalidArgument when it is empty or damaged, Unavailable when the disk is full.
    """

    def pass_on(out: Writable) -> None:
        plain = decompress(stream)
        piece = plain.read(CHUNK)
        if not piece:
            raise InvalidArgument("cannot import", why="the archive is empty")
        while piece:
            out.write(piece)
            piece = plain.read(CHUNK)

    return store_layer(pass_on, blobs=blobs)


def store_directory(path: str, *, blobs: Blobs) -> Layer:
    """A directory as a layer: the same files always give the same diff ID. Mounts below it are not entered.

    Raises: InvalidArgument when it is no directory, or cannot be read; Unavailable when it changes meanwhile.
    """
    try:
        with Union([path]) as tree:
            return store_layer(lambda out: write_tree(tree, out), blobs=blobs)
    except (EOFError, FileNotFoundError) as err:
        if not os.path.exists(path):
            raise InvalidArgument(f"open {path}", why="no such file or directory") from err
        raise Unavailable(f"cannot import {path}", why="its files changed while they were read") from err
    except OSError as err:
        raise InvalidArgument(f"cannot import {path}", why=os.strerror(err.errno or 0).lower()) from err
