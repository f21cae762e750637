"""What this engine is and what it found on this machine: `info`, `version`."""

from __future__ import annotations

import os
import sys

import cloison
from cloison.engine.roots import open_roots
from cloison.linux import cgroups

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloison.engine.pruning import PruneFilter
    from cloison.model.settings import Settings
    from cloison.model.usage import Problem, StoreUsage, SystemPruned


class System:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def version(self) -> dict[str, str]:
        """Names and versions; touches nothing."""
        host = os.uname()
        return {
            "Version": cloison.__version__,
            "PythonVersion": sys.version.split()[0],
            "Os": "linux",
            "Arch": {"x86_64": "amd64", "aarch64": "arm64"}.get(host.machine, host.machine),
            "KernelVersion": host.release,
        }

    def usage(self) -> StoreUsage:
        """Every byte of the data root, and whose it is. Reads all of it. Raises: Unavailable."""
        from cloison.engine.accounting import measure
        from cloison.engine.containers import Containers

        return measure(self._settings, Containers(self._settings).list(all=True))

    def prune(self, *, all: bool = False, volumes: bool = False, only: PruneFilter | None = None) -> SystemPruned:
        """Remove stopped containers, then images without a name (or ``all`` that nobody uses); volumes where asked.

        Raises: Unavailable.
        """
        from cloison.engine.containers import Containers
        from cloison.engine.pruning import PruneFilter, prune_containers, prune_images, prune_volumes
        from cloison.model.usage import Pruned, SystemPruned

        containers = Containers(self._settings)
        chosen = only or PruneFilter()
        return SystemPruned(
            containers=prune_containers(containers, settings=self._settings, only=chosen),
            volumes=prune_volumes(containers, settings=self._settings) if volumes else Pruned(),
            images=prune_images(settings=self._settings, all=all, only=chosen),
        )

    def check(self, *, repair: bool = False, quick: bool = False) -> Iterator[Problem]:
        """Every problem of the store, as it is found; ``quick`` reads no blob and no layer. Raises: Unavailable."""
        from cloison.engine.checking import check

        return check(self._settings, repair=repair, quick=quick)

    def info(self) -> dict[str, object]:
        """Counts, places and the host's facts, under the names that Docker's ``info`` has where it has them."""
        from cloison.engine.containers import Containers
        from cloison.engine.images import Images
        from cloison.snapshots.drivers import open_snapshots

        open_roots(self._settings)
        states = [record.state.status for record in Containers(self._settings).list(all=True)]
        layout = cgroups.read_layout()
        snapshots = open_snapshots(self._settings)
        return {
            "Containers": len(states),
            "ContainersRunning": states.count("running"),
            "ContainersPaused": states.count("paused"),
            "ContainersStopped": len(states) - states.count("running") - states.count("paused"),
            "Images": len({listing.image.id for listing in Images(self._settings).list()}),
            "Driver": snapshots.name,
            "DriverStatus": snapshots_status(self._settings, snapshots.name),
            "DataRoot": self._settings.data_root,
            "RunRoot": self._settings.run_root,
            "CgroupVersion": _cgroup_version(layout),
            "CgroupControllers": sorted({*layout.legacy, *layout.unified_controllers}),
            "SecurityOptions": ["seccomp", "no-new-privileges"],
            "KernelVersion": os.uname().release,
            "OperatingSystem": _operating_system(),
            "Architecture": os.uname().machine,
            "NCPU": os.cpu_count() or 1,
            "MemTotal": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "Name": os.uname().nodename,
            "ServerVersion": cloison.__version__,
        }


def snapshots_status(settings: Settings, name: str) -> list[str]:
    """Why this storage driver, and what kept those that would have been taken before it."""
    from cloison.snapshots.drivers import NAMES, is_kept, why_not

    if settings.storage_driver:
        return ["asked for"]
    others = [(other, why_not(other, settings.data_root)) for other in NAMES[: NAMES.index(name)]]
    told = [f"{other}: {why}" for other, why in others if why]
    if told:
        return told
    return ["the data root has it already" if is_kept(settings.data_root) else "the first that works"]


def _cgroup_version(layout: cgroups.Layout) -> str:
    if layout.legacy:
        return "hybrid" if layout.unified else "1"
    return "2"


def _operating_system() -> str:
    try:
        with open("/etc/os-release", encoding="utf-8", errors="replace") as file:
            lines = dict(line.rstrip("\n").split("=", 1) for line in file if "=" in line)
    except OSError:
        return "Linux"
    return lines.get("PRETTY_NAME", "Linux").strip('"')
