"""What ``checkpoint`` and ``restore`` have in common: their options as CRIU has them, its directories, its errors."""

from __future__ import annotations

import os
import stat

from cloison.errors import Denied, InvalidArgument, NotFound, Unavailable, Unsupported
from cloison.linux import criu
from cloison.linux.cgroup_layout import read_layout
from cloison.linux.command import find
from cloison.store.json import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloison.linux.criu import Notice, Worker
    from cloison.oci.runtime import Spec
    from cloison.oci_runtime.options import Call

# What both verbs take
OPTIONS = {
    "image-path": "text", "work-path": "text", "tcp-established": "switch", "ext-unix-sk": "switch",
    "shell-job": "switch", "file-locks": "switch", "manage-cgroups-mode": "text", "empty-ns": "list",
    "auto-dedup": "switch", "lazy-pages": "switch",
}  # fmt: skip
_SWITCHES = ("tcp-established", "ext-unix-sk", "shell-job", "file-locks", "auto-dedup", "lazy-pages")
_MODES = {"": criu.SOFT, "soft": criu.SOFT, "full": criu.FULL, "strict": criu.STRICT, "ignore": criu.IGNORE}
_NEW_NETWORK = 0x40000000  # CLONE_NEWNET
_LOG_LEVEL = 4
# The names under which namespaces that are somebody else's stand in the image: runc's and crun's
NAMESPACE_KEYS = {"network": "extRootNetNS", "pid": "extRootPidNS"}
# What CRIU reads besides its own configuration: the first that there is. The others' are for who comes from there.
CONFIG_FILES = ("/etc/criu/cloison.conf", "/etc/criu/crun.conf", "/etc/criu/runc.conf")
_CONFIG_ANNOTATION = "org.criu.config"
# Beside CRIU's own images: where descriptors led to (runc's and crun's file), which mounts come from outside (ours)
DESCRIPTORS_FILE, MOUNTS_FILE = "descriptors.json", "mounts.json"
_MAX_LIST = 1 << 20
_MOST_IMAGES = 64  # in a chain of earlier ones


def check_rights(what: str) -> None:
    """Raises: Denied."""
    if os.geteuid():
        raise Denied(f"cannot {what} a container", why="criu needs root")


def common_options(call: Call, annotations: Mapping[str, str]) -> dict[str, object]:
    """Those of both verbs, by CRIU's names. Raises: InvalidArgument."""
    strange = next((name for name in call.texts("empty-ns") if name != "network"), "")
    if strange:
        raise InvalidArgument(f"namespace {strange[:32]!r} is not supported", why="--empty-ns takes network")
    options: dict[str, object] = {name.replace("-", "_"): call.switch(name) for name in _SWITCHES}
    options.update(
        log_level=_LOG_LEVEL,
        notify_scripts=True,
        orphan_pts_master=True,
        # Devices and addresses are their makers': callers, hooks and netDevices give them to the restored container
        empty_ns=_NEW_NETWORK,
        manage_cgroups=True,
        manage_cgroups_mode=cgroups_mode(call),
    )
    if not find("iptables-restore"):  # which CRIU would use to hold packets back meanwhile
        options["network_lock"] = criu.NFTABLES
    if config := config_file(annotations):
        options["config_file"] = config
    return options


def cgroups_mode(call: Call) -> int:
    """Raises: InvalidArgument."""
    text = call.text("manage-cgroups-mode")
    if text not in _MODES:
        why = "it is none of soft, full, strict, ignore"
        raise InvalidArgument(f"invalid manage-cgroups-mode {text[:32]!r}", why=why)
    return _MODES[text]


def config_file(annotations: Mapping[str, str]) -> str:
    """What the annotation names, "" included; else the first of the usual ones that there is."""
    if _CONFIG_ANNOTATION in annotations:
        return annotations[_CONFIG_ANNOTATION]
    return next(filter(os.path.isfile, CONFIG_FILES), "")


def check_namespaces(spec: Spec, what: str) -> None:
    """Raises: Unsupported for what CRIU cannot join again."""
    paths = {namespace.type: namespace.path for namespace in spec.linux.namespaces}
    for kind in ("mount", "user", "cgroup"):
        if paths.get(kind) or (kind == "mount" and kind not in paths):
            raise Unsupported(f"cannot {what} a container", why=f"its {kind} namespace is not its own")


def group_yard() -> dict[str, tuple[str, str]]:
    """Version 2 of the control groups as CRIU looks for it, for `PrivateMounts.gather`.

    It would mount the tree anew, in the host's cgroup namespace, and so take nsdelegate and memory_recursiveprot from
    the whole machine (cgroup-v2.rst, "Mounting": "can only be set on mount or modified through remount from init").
    """
    unified = read_layout().unified
    return {"unified": (unified, "nosuid,nodev,noexec")} if unified else {}


class Directories:
    """Where CRIU's images and its log are; a context manager that closes. Raises: NotFound, Denied, InvalidArgument."""

    def __init__(self, call: Call, *, make: bool) -> None:
        self.images = os.path.abspath(call.text("image-path") or "checkpoint")
        self.work = os.path.abspath(call.text("work-path") or self.images)
        self._fds: list[int] = []
        try:
            for path in dict.fromkeys((self.images, self.work)):
                self._fds.append(_open_directory(path, make=make or path != self.images))
        except BaseException:
            self.close()
            raise

    def options(self) -> dict[str, object]:
        return {"images_dir_fd": self._fds[0], "work_dir_fd": self._fds[-1]}

    def log(self, name: str) -> str:
        """The path of a log yet to be written: what an earlier call left is not there any more."""
        path = f"{self.work}/{name}"
        try:
            os.unlink(path)
        except OSError:
            pass
        return path

    def let_in(self, uid: int) -> None:
        """For a user namespace's root, who reads the images itself; nobody else may. Raises: OSError, NotFound, Denied.

        In CRIU that is at first the host's root without his rights, and later this one: hence group and owner.
        """
        path, left = self.images, _MOST_IMAGES
        while left and os.path.isfile(f"{path}/inventory.img"):
            fd = _open_directory(path, make=False)
            try:
                _share_all(fd, uid)
            finally:
                os.close(fd)
            path, left = f"{path}/parent", left - 1  # what was copied beforehand

    def write(self, name: str, document: object) -> None:
        """Beside the images."""
        from cloison.store.atomic import write_file

        write_file(f"{self.images}/{name}", dumps(document), durable=False)

    def read_texts(self, name: str) -> list[str]:
        """A list, empty when there is no such file. Raises: InvalidArgument."""
        words = self._read(name)
        return _texts(words, f"{self.images}/{name}") if words is not None else []

    def read_rows(self, name: str, *, width: int) -> list[list[str]] | None:
        """A list of lists of this length; None when there is no such file. Raises: InvalidArgument."""
        path, rows = f"{self.images}/{name}", self._read(name)
        if rows is None:
            return None
        if not isinstance(rows, list):
            raise InvalidArgument(f"cannot read {path}", why="it is not a list")
        texts = [_texts(row, path) for row in rows]
        if any(len(row) != width for row in texts):
            raise InvalidArgument(f"cannot read {path}", why=f"a row has not {width} fields")
        return texts

    def _read(self, name: str) -> object:
        from cloison.store.atomic import read_file

        path = f"{self.images}/{name}"
        try:
            return loads(read_file(path, limit=_MAX_LIST))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as err:
            raise InvalidArgument(f"cannot read {path}", why=str(err)) from err

    def open_again(self) -> None:
        """By the mounts that this thread sees now: CRIU mounts on them, and can in its own mount namespace alone."""
        for fd, path in zip(self._fds, dict.fromkeys((self.images, self.work)), strict=True):
            again = _open_directory(path, make=False)
            os.dup2(again, fd, inheritable=False)
            os.close(again)

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.pop())

    def __enter__(self) -> Directories:
        return self

    def __exit__(self, *_failure: object) -> None:
        self.close()


def _share_all(directory: int, uid: int) -> None:
    _share(directory, uid, bits=0o070)
    for name in os.listdir(directory):
        try:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
        except OSError:
            continue  # the link to an earlier one
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
            _share(fd, uid, bits=0o060)
        os.close(fd)


def _share(fd: int, uid: int, *, bits: int) -> None:
    os.fchown(fd, uid, 0)
    os.fchmod(fd, stat.S_IMODE(os.fstat(fd).st_mode) | bits)


def let_users_in(directories: Directories, spec: Spec) -> None:
    """Root of the container's user namespace, where it has one."""
    from cloison.oci.config_mounts import host_id

    root = host_id(0, spec.linux.uid_mappings)
    if spec.linux.uid_mappings and root >= 0:
        directories.let_in(root)


def _texts(words: object, path: str) -> list[str]:
    if not (isinstance(words, list) and all(isinstance(word, str) and "\0" not in word for word in words)):
        raise InvalidArgument(f"cannot read {path}", why="it is not a list of texts")
    return words


def _open_directory(path: str, *, make: bool) -> int:
    try:
        if make:
            os.makedirs(path, 0o700, exist_ok=True)
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as err:
        kind = NotFound if isinstance(err, FileNotFoundError) else Denied
        raise kind(f"cannot use directory {path}", why=os.strerror(err.errno or 0).lower()) from err


def converse(worker: Worker, handle: Callable[[Notice], None]) -> Notice:
    """Answer its notices to the last, which is given back. Raises: what ``handle`` raises."""
    while True:
        try:
            notice = worker.receive()
        except criu.Lost as err:
            return criu.Notice(success=False, error=err.why)
        if not notice.script:
            return notice
        try:
            handle(notice)
        finally:
            if notice.fd >= 0:
                os.close(notice.fd)
        worker.go_on()


def check(notice: Notice, what: str, *, log: str) -> None:
    """Raises: Unavailable with the last errors of its log, and where that is."""
    if not notice.success:
        errors = criu.last_errors(log) or ([notice.error] if notice.error else [])
        raise Unavailable(what, why=f"criu: {'; '.join(errors) or 'it did not say why'} (see {log})")
