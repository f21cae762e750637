"""systemd's manager: transient units for containers, by D-Bus (org.freedesktop.systemd1(5)).

Root talks to PID 1 and everybody else to the manager of their own session, by the manager's own socket where it can be
reached (no bus daemon in between, as systemctl does it), else by the bus.
"""

from __future__ import annotations

import os

from cloison.errors import Conflict, Denied, InvalidArgument, NotFound, Unavailable, Unsupported
from cloison.linux.dbus import Connection, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Any, Self, TypeAlias

    from cloison.errors import CloisonError

    Properties: TypeAlias = Sequence[tuple[str, tuple[str, Any]]]  # name, (D-Bus signature, value)

_NAME = "org.freedesktop.systemd1"
_PATH = "/org/freedesktop/systemd1"
_BUS = "org.freedesktop.DBus"
_MANAGER = f"{_NAME}.Manager"
_KINDS = {
    "UnitExists": Conflict,
    "NoSuchUnit": NotFound,
    "AccessDenied": Denied,
    "InteractiveAuthorizationRequired": Denied,
    "InvalidArgs": InvalidArgument,
    "PropertyReadOnly": InvalidArgument,
    "UnknownProperty": InvalidArgument,
    "LoadFailed": Unavailable,
}


class Manager:
    """A conversation with one service manager."""

    def __init__(self, connection: Connection, *, is_direct: bool) -> None:
        self._connection = connection
        if not is_direct:
            self._call_bus("Hello")
            match = f"type='signal',interface='{_MANAGER}',member='JobRemoved'"
            self._call_bus("AddMatch", "s", match)
            self.call("Subscribe")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._connection.__exit__(kind, value, at)

    def call(self, member: str, signature: str = "", *body: Any) -> tuple[Any, ...]:
        """A method of the manager. Raises: what fits the error's name, else Unavailable."""
        return self._call(_PATH, member, interface=_MANAGER, signature=signature, body=body)

    def start(self, unit: str, properties: Properties) -> None:
        """Make and start a transient unit; on return it runs. Raises: Conflict when it exists, and as `call`."""
        [job] = self.call("StartTransientUnit", "ssa(sv)a(sa(sv))", unit, "replace", list(properties), [])
        self._await_job(job, f"start unit {unit}")

    def stop(self, unit: str) -> None:
        """Stop a unit, its processes with it; silent when there is none."""
        try:
            [job] = self.call("StopUnit", "ss", unit, "replace")
            self._await_job(job, f"stop unit {unit}")
        except NotFound:
            pass
        try:
            self.call("ResetFailedUnit", "s", unit)  # one that failed would stay in the list, and block its name
        except NotFound:
            pass

    def set_properties(self, unit: str, properties: Properties) -> None:
        """Change limits until the next reboot. Raises: NotFound, InvalidArgument."""
        self.call("SetUnitProperties", "sba(sv)", unit, True, list(properties))

    def control_group(self, unit: str) -> str:
        """Below the hierarchies' roots, without a leading slash. Raises: NotFound, Unavailable."""
        [path] = self.call("GetUnit", "s", unit)
        interface = f"{_NAME}.{'Slice' if unit.endswith('.slice') else 'Scope'}"
        [(_signature, group)] = self._call(
            path, "Get", interface=f"{_BUS}.Properties", signature="ss", body=(interface, "ControlGroup")
        )
        if not group:
            raise Unavailable(f"unit {unit} has no control group")
        return str(group).strip("/")

    def _await_job(self, job: str, purpose: str) -> None:
        """JobRemoved(id, job, unit, result) may have come before the answer that names the job."""
        while True:
            signals = self._connection.signals
            while signals:
                signal = signals.pop(0)
                if signal.member == "JobRemoved" and signal.body[1] == job:
                    if signal.body[3] != "done":
                        raise Unavailable(f"systemd cannot {purpose}", why=f"its job's result is {signal.body[3]!r}")
                    return
            signals.append(self._receive(purpose))

    def _receive(self, purpose: str) -> Any:
        try:
            return self._connection.receive()
        except OSError as err:
            raise _silence(purpose, err) from err

    def _call_bus(self, member: str, signature: str = "", *body: Any) -> tuple[Any, ...]:
        return self._call("/org/freedesktop/DBus", member, interface=_BUS, signature=signature, body=body, to=_BUS)

    def _call(
        self, path: str, member: str, *, interface: str, signature: str, body: Sequence[Any], to: str = _NAME
    ) -> tuple[Any, ...]:
        try:
            return self._connection.call(
                path, member, interface=interface, destination=to, signature=signature, body=body
            )
        except Refused as err:
            kind: type[CloisonError] = _KINDS.get(err.name.rpartition(".")[2], Unavailable)
            raise kind(f"systemd refuses {member}", why=err.text or err.name) from err
        except OSError as err:
            raise _silence(member, err) from err


def connect(runtime_directory: str = "") -> Manager:
    """The manager of root, or of the session whose XDG_RUNTIME_DIR this is. Raises: Unsupported, Unavailable."""
    if os.geteuid() == 0:
        sockets = (("/run/systemd/private", True), ("/run/dbus/system_bus_socket", False))
    else:
        session = runtime_directory or f"/run/user/{os.geteuid()}"
        sockets = ((f"{session}/systemd/private", True), (f"{session}/bus", False))
    reasons = []
    for path, is_direct in sockets:
        try:
            connection = Connection(path)
        except OSError as err:
            reasons.append(f"{path}: {os.strerror(err.errno or 0).lower()}")
            continue
        try:
            return Manager(connection, is_direct=is_direct)
        except BaseException:
            connection.__exit__(None, None, None)
            raise
    raise Unsupported(
        "cannot reach systemd", why="; ".join(reasons), hint="use the cgroupfs driver where systemd does not run"
    )


def _silence(purpose: str, err: OSError) -> Unavailable:
    why = "no answer" if isinstance(err, TimeoutError) else str(err.strerror or err).lower()
    return Unavailable(f"systemd does not answer ({purpose})", why=why, hint="try again: it may have much to start")
