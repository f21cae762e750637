"""What goes on in a container: its processes, and what they use."""

from __future__ import annotations

from cloison.model.record import Record


class ProcessTable(Record):
    """Rows of text under their titles, as ps(1) prints them; the last column may hold blanks."""

    titles: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class ContainerStats(Record):
    """Counters at one moment; all 0 for a container that does not run.

    Times in nanoseconds, the rest in bytes, but for ``pids``. ``cpu_ns`` counts all processors. ``memory_bytes`` is
    without the page cache that the kernel could drop at once; ``memory_limit_bytes`` the machine's memory where there
    is no limit. Bytes of the network are those of the container's own interfaces, without loopback.
    """

    id: str
    name: str
    read_ns: int = 0  # monotonic
    cpu_ns: int = 0
    memory_bytes: int = 0
    memory_limit_bytes: int = 0
    received_bytes: int = 0
    sent_bytes: int = 0
    read_bytes: int = 0
    written_bytes: int = 0
    pids: int = 0
