"""A big blob in parts: several on their way at once, given back in order; memory is that of the parts on their way.

One connection seldom fills a long line: its window and the server's share of it are the limit. Parts are asked for by
range (RFC 9110 section 14), each again where it broke.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    Fetch = Callable[[int, int], bytes]


def fetch_parts(fetch: Fetch, offset: int, *, end: int, part_bytes: int, count: int) -> Iterator[bytes]:
    """The bytes from ``offset`` to ``end``, as ``fetch(begin, end)`` gives them; its errors come in their place."""
    crew = ThreadPoolExecutor(count, thread_name_prefix="ranges")
    parts: deque[Future[bytes]] = deque()
    try:
        begin = offset
        while begin < end or parts:
            while begin < end and len(parts) < count:
                parts.append(crew.submit(fetch, begin, min(begin + part_bytes, end)))
                begin += part_bytes
            yield parts.popleft().result()
    finally:
        # whoever waits in the network ends with its connection: the client's abort sees to that
        crew.shutdown(wait=False, cancel_futures=True)
