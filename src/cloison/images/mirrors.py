"""One repository behind several endpoints: the first that has what is asked for gives it; at last the registry."""

from __future__ import annotations

from cloison.errors import CloisonError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType
    from typing import TypeVar

    from cloison.model.reference import Reference
    from cloison.oci.image import Descriptor
    from cloison.registry.client import ManifestAnswer, RegistryClient

    T = TypeVar("T")


class Mirrored:
    """Reads as a `RegistryClient` does. An endpoint that failed is not asked again; ``say`` hears of it."""

    def __init__(self, clients: Sequence[RegistryClient], *, say: Callable[[str], None]) -> None:
        self._clients = clients
        self._say = say
        self._at = 0
        self._stopped = False

    @property
    def rate_limit(self) -> str:
        return self._clients[self._at].session.rate_limit

    def manifest(self, reference: Reference) -> ManifestAnswer:
        """As `RegistryClient.manifest`; the error of the last endpoint is raised."""
        return self._first(lambda client: client.manifest(reference))

    def digest(self, reference: Reference) -> str:
        """As `RegistryClient.digest`."""
        return self._first(lambda client: client.digest(reference))

    def _first(self, ask: Callable[[RegistryClient], T]) -> T:
        while True:
            at = self._at
            try:
                return ask(self._clients[at])
            except CloisonError as err:
                self._give_up(at, err)

    def blob(self, descriptor: Descriptor, *, offset: int = 0) -> Iterator[bytes]:
        """As `RegistryClient.blob`; the next endpoint goes on where one failed."""
        while True:
            at = self._at
            try:
                for piece in self._clients[at].blob(descriptor, offset=offset):
                    offset += len(piece)
                    yield piece
                return
            except CloisonError as err:
                self._give_up(at, err)

    def _give_up(self, at: int, err: CloisonError) -> None:
        """Turn to the next endpoint. Raises: the error when there is none."""
        if self._stopped or at + 1 >= len(self._clients):
            raise err
        if self._at == at:
            self._at = at + 1
            self._say(f"Mirror {self._clients[at].session.name} is skipped: {err}")

    def abort(self) -> None:
        """End all transfers, from any thread."""
        self._stopped = True
        for client in self._clients:
            client.abort()

    def __enter__(self) -> Mirrored:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self._clients:
            client.session.close()
