"""One file from a web server, read as a stream: what `import URL` asks for."""

from __future__ import annotations

from contextlib import contextmanager

from cloison.errors import InvalidArgument, NotFound, Unavailable
from cloison.registry.origin import Guard, origin_of
from cloison.registry.transport import Transport, proxies_from

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloison.model.settings import Settings
    from cloison.registry.transport import Response

_MAX_BYTES = 1 << 40


class _Body:
    """A file to be read to its end."""

    def __init__(self, response: Response) -> None:
        self._response = response

    def read(self, size: int, /) -> bytes:
        return self._response.read_some(size)


@contextmanager
def download(url: str, *, settings: Settings) -> Iterator[_Body]:
    """While it is entered the file comes; redirects are followed as a registry's are, no credentials are sent.

    Raises: NotFound, Denied (a redirect that leads where it may not), Unavailable, InvalidArgument (no address).
    """
    try:
        origin = origin_of(url)
    except InvalidArgument as err:
        raise InvalidArgument(f"cannot import {url}", why="it is no address of a file on a web server") from err
    transport = Transport(Guard(origin, insecure=(origin.authority,)), proxies=proxies_from(settings))
    try:
        with transport.get(url, headers={}, body_bytes=_MAX_BYTES) as response:
            if response.status == 404:
                raise NotFound(f"no such file: {url}")
            if response.status != 200:
                raise Unavailable(f"cannot import {url}", why=f"{origin.authority} answers with {response.status}")
            yield _Body(response)
    finally:
        transport.close()
