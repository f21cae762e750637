"""A complete container engine, in process: ``import cloison`` and run a command in a container of its own.

    >>> import cloison
    >>> cloison.run("host/base", ["echo", "hi"]).stdout
    b'hi\\n'

What is exported here is the engine's own surface, loaded when it is first touched (PEP 562), so that importing the
package costs nothing. This module is a door: it alone reads the environment (``CLOISON_DATA_ROOT``,
``CLOISON_RUN_ROOT``, …) for programs.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.engine.engine import Engine as Engine
    from cloison.engine.running import Result as Result
    from cloison.engine.running import run as run
    from cloison.errors import CloisonError as CloisonError
    from cloison.model.container import ContainerSpec as ContainerSpec
    from cloison.model.container import Stdio as Stdio
    from cloison.model.settings import Access as Access
    from cloison.model.settings import Settings as Settings

__version__ = "0.1.0"

_HOMES = {
    "Access": "cloison.model.settings",
    "Engine": "cloison.engine.engine",
    "Result": "cloison.engine.running",
    "run": "cloison.engine.running",
    "CloisonError": "cloison.errors",
    "ContainerSpec": "cloison.model.container",
    "Stdio": "cloison.model.container",
    "Settings": "cloison.model.settings",
}
__all__ = ["Access", "CloisonError", "ContainerSpec", "Engine", "Result", "Settings", "Stdio", "__version__", "run"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'cloison' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
