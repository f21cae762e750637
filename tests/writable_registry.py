"""A scripted registry that takes uploads as the specification says; tests bend one answer at a time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs

from cloison.model.settings import Settings
from cloison.oci.image import Descriptor
from cloison.registry.client import RegistryClient
from cloison.registry.upload import Uploader
from scripted_registry import LIMITS, Exchange, ScriptedRegistry, name_on


class Writable:
    """One upload at a time, at ``/v2/app/blobs/uploads/``; ``stored`` is what has arrived whole."""

    def __init__(self, server: ScriptedRegistry) -> None:
        self.server = server
        self.arrived = b""
        self.stored: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        self.place = "/v2/app/blobs/uploads/1"
        on = server.on
        on("POST /v2/app/blobs/uploads/", self.begin)
        on(f"PATCH {self.place}", self.patch)
        on(f"PUT {self.place}", self.put)
        on(f"GET {self.place}", self.tell)
        on(f"DELETE {self.place}", lambda exchange: exchange.answer(204))

    def begin(self, exchange: Exchange) -> None:
        self.arrived = b""
        exchange.answer(202, location=self.place)

    def patch(self, exchange: Exchange) -> None:
        self.arrived += exchange.read()
        exchange.answer(202, location=self.place)

    def tell(self, exchange: Exchange) -> None:
        exchange.answer(204, location=self.place, range=f"0-{max(len(self.arrived) - 1, 0)}")

    def put(self, exchange: Exchange) -> None:
        self.arrived += exchange.read()
        (wanted,) = parse_qs(exchange.query)["digest"]
        if "sha256:" + hashlib.sha256(self.arrived).hexdigest() != wanted:
            exchange.answer(400, b'{"errors":[{"code":"DIGEST_INVALID","message":"provided digest did not match"}]}')
            return
        self.stored[wanted] = self.arrived
        exchange.answer(201)

    def take_manifests(self, tag: str, *, subjects: bool = False) -> None:
        def put(exchange: Exchange) -> None:
            self.manifests[tag] = body = exchange.read()
            subject = json.loads(body).get("subject", {}).get("digest", "")
            exchange.answer(201, **({"oci_subject": subject} if subject and subjects else {}))

        self.server.on(f"PUT /v2/app/manifests/{tag}", put)

    def methods(self) -> list[str]:
        return [request.method for request in self.server.requests]


@contextmanager
def uploader_of(server: ScriptedRegistry) -> Iterator[Uploader]:
    with RegistryClient(name_on(server), settings=Settings(), limits=LIMITS, actions="pull,push") as client:
        yield Uploader(client)


def described(data: bytes) -> Descriptor:
    return Descriptor(media_type="x", digest="sha256:" + hashlib.sha256(data).hexdigest(), size=len(data))


def opener(data: bytes) -> Callable[[int], Iterator[bytes]]:
    """The content from an offset on, in pieces."""

    def open_at(offset: int) -> Iterator[bytes]:
        for begin in range(offset, len(data), 100_000):
            yield data[begin : begin + 100_000]

    return open_at
