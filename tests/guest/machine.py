"""The guest machine: a Debian with systemd under QEMU's own processor, for what the kernel of this machine lacks.

``machine.py [PYTEST ARGUMENTS]`` runs there the tests that are marked ``guest``, or those of the paths that are given,
on our wheel as it would be installed. It ends with pytest's status; the report is in ``build/guest/out/report.xml``.
The machine starts from an image that is made once and never written to; every run gets a copy-on-write view of it.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
BUILD = PROJECT / "build" / "guest"
REPORTS_BYTES = 64 << 20
RUN_S = float(os.environ.get("GUEST_TIMEOUT", "480"))
BOOT_S = RUN_S / 4  # to the first word of the tests; 15 s on an idle machine
QEMU = "qemu-system-x86_64"
NEEDED = {
    QEMU: "qemu-system-x86",
    "mmdebstrap": "mmdebstrap",
    "mkfs.ext4": "e2fsprogs",
    "/bin/busybox": "busybox-static",
}
UNAVAILABLE = 77  # what automake's tests say when they cannot be run

PACKAGES = "usr/local/lib/python3.11/dist-packages"  # of the guest's own Python
WORK = "srv/work"
COMMAND = """\
ln -s /usr/local/lib/python3.11/dist-packages src
export CLOISON_GUEST=1
uname -sr
python3 -m pytest --color=no --tb=short --junit-xml=out/report.xml -p no:cacheprovider --timeout={timeout} {arguments}
"""


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    arguments = sys.argv[1:]
    if not any((PROJECT / word.partition("::")[0]).exists() for word in arguments):
        arguments += ["-m", "guest", *marked()]
    missing = [package for program, package in NEEDED.items() if not shutil.which(program, path=_path())]
    if missing or os.geteuid():
        why = f"needs Debian's packages {' '.join(missing)}" if missing else "needs root, to make its image"
        print(f"guest machine: not run: {why}")
        return UNAVAILABLE
    try:
        image = build_image()
    except subprocess.CalledProcessError:
        print("guest machine: not run: its image could not be made (see above)")
        return UNAVAILABLE
    with tempfile.TemporaryDirectory(prefix="run-", dir=BUILD) as name:
        work, reports = Path(name, "work.tar"), Path(name, "reports.tar")
        pack(work, arguments)
        with reports.open("wb") as file:
            file.truncate(REPORTS_BYTES)
        failure = boot(image, work=work, reports=reports)
        return failure or unpack(reports)


def marked() -> list[str]:
    """The test files that have the mark: the others may import what the guest lacks, and take long to collect."""
    files = sorted((PROJECT / "tests").rglob("test_*.py"))
    return [str(path.relative_to(PROJECT)) for path in files if "pytest.mark.guest" in path.read_text()]


def build_image() -> Path:
    """The directory with kernel, first steps and root file system; made when its recipe has changed."""
    recipe = hashlib.sha256()
    for path in sorted([HERE / "build-image.sh", *(HERE / "root").rglob("*")]):
        if path.is_file():
            recipe.update(str(path.relative_to(HERE)).encode() + path.read_bytes())
    image = BUILD / f"image-{recipe.hexdigest()[:16]}"
    if not image.is_dir():
        print("guest machine: making its image, once; this takes a minute or two", flush=True)
        BUILD.mkdir(parents=True, exist_ok=True)
        for old in BUILD.glob("image-*"):
            shutil.rmtree(old)
        subprocess.run([HERE / "build-image.sh", sys.executable, image], check=True)
    return image


def pack(work: Path, arguments: list[str]) -> None:
    """The wheel as it is installed, the tests, and the command that runs them: one tar, which is the second disk."""
    with tempfile.TemporaryDirectory() as name:
        wheel = Path(name, "wheel")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--no-build-isolation", "--target", wheel, PROJECT], check=True)
        for script in (wheel / "bin").iterdir():  # pip wrote the path of this machine's interpreter
            _head, _, rest = script.read_text().partition("\n")
            script.write_text(f"#!/usr/bin/python3\n{rest}")
        command = Path(name, "command")
        command.write_text(COMMAND.format(timeout=int(RUN_S / 4), arguments=shlex.join(arguments)))
        with tarfile.open(work, "w") as tar:
            tar.add(wheel / "cloison", f"{PACKAGES}/cloison")
            tar.add(wheel / "bin", "usr/local/bin")
            for path in (command, PROJECT / "pyproject.toml", PROJECT / "tests"):
                tar.add(path, f"{WORK}/{path.name}")


def boot(image: Path, *, work: Path, reports: Path) -> int:
    """Run the machine to its end, and say what its tests say as they say it. 0, or 1 and a printed reason."""
    disks = []
    kept = [f"{image}/{name},snapshot=on" for name in ("root.ext4", "quota.ext4", "quota.xfs")]
    for disk in (kept[0], f"{work},readonly=on", f"{reports}", *kept[1:]):
        disks += ["-drive", f"if=virtio,format=raw,file={disk}"]
    kernel = "console=ttyS0 rw quiet mitigations=off nokaslr panic=-1 rcupdate.rcu_expedited=1"
    log = BUILD / "console.log"
    argv = [
        "setpriv", "--pdeathsig", "KILL",  # it shall not outlive us
        QEMU, "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2G", "-nodefaults", "-no-user-config",
        "-display", "none", "-no-reboot", "-kernel", f"{image}/vmlinuz", "-initrd", f"{image}/initrd",
        "-append", kernel,
        *disks, "-serial", f"file:{log}", "-serial", "stdio",
    ]  # fmt: skip
    started = time.monotonic()
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as machine:
        try:
            why = _follow(machine)
        except BaseException:  # ^C, or SIGTERM
            machine.kill()
            raise
    print(f"guest machine: {time.monotonic() - started:.0f} s", flush=True)
    if not why and machine.returncode:
        why = f"qemu ended with {machine.returncode}"
    if not why:
        return 0
    print(f"guest machine: {why}; its console said at the end:")
    print("\n".join(log.read_text(errors="replace").splitlines()[-30:]))
    return 1


def _follow(machine: subprocess.Popen[bytes]) -> str:
    """Print its lines until it ends; why it was switched off, or ""."""
    reasons: list[str] = []

    def switch_off(why: str) -> None:
        reasons.append(why)
        machine.kill()

    up = threading.Timer(BOOT_S, switch_off, [f"it did not come up within {BOOT_S:g} s"])
    done = threading.Timer(RUN_S, switch_off, [f"it did not end within {RUN_S:g} s (GUEST_TIMEOUT)"])
    for alarm in (up, done):
        alarm.daemon = True
        alarm.start()
    assert machine.stdout is not None
    for line in machine.stdout:
        up.cancel()
        print(line.decode(errors="replace").rstrip("\r\n"), flush=True)
    machine.wait()
    up.cancel()
    done.cancel()
    return "".join(reasons[:1])


def unpack(reports: Path) -> int:
    """Keep what the guest left; the status of its command."""
    shutil.rmtree(BUILD / "out", ignore_errors=True)
    try:
        subprocess.run(["tar", "-x", "--no-same-owner", "-f", reports, "-C", BUILD], check=True)
        return int((BUILD / "out" / "status").read_text())
    except (subprocess.CalledProcessError, OSError, ValueError) as err:
        print(f"guest machine: it left no report ({err}); see {BUILD / 'console.log'}")
        return 1


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


if __name__ == "__main__":
    sys.exit(main())
