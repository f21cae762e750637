"""The OCI runtimes beside each other on one bundle: speed, peak memory, and how small a memory limit may be."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

import measure
from measure import Once
from peers import TRUE, Runtime, bundle, missing, our_runtime

TARGET = "bench-target"
LIMITS_KIB = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)


def find_runtimes(directory: Path, wanted: set[str]) -> dict[str, Runtime]:
    """Those that run the bundle; a line for each that does not."""
    if missing("runc"):
        print("- runc: not installed, and with it no OCI runtime is compared")  # it writes the bundle
        return {}
    bundle(directory)
    found: dict[str, Runtime] = {}
    for name in ("cloison", "runc", "crun"):
        if wanted and name not in wanted:
            continue
        if name != "cloison" and missing(name):
            print(f"- {name}: not installed")
            continue
        runtime = our_runtime(directory) if name == "cloison" else Runtime(name, [name])
        try:
            runtime.once(run(directory))()
            found[name] = runtime
        except (measure.Failed, ValueError) as err:
            print(f"- {name}: takes no part: {err}")
    return found


def run(where: Path) -> tuple[str, ...]:
    return ("run", "--bundle", str(where), "bench-true")


def rows(runtimes: Iterable[Runtime], directory: Path) -> list[tuple[str, dict[str, Once]]]:
    """What is measured, with a container up in each; `stop` takes them away."""
    runtimes = list(runtimes)
    target = directory / "target"
    target.mkdir()
    for runtime in runtimes:
        bundle(target, "/bin/busybox", "sleep", "3600", root=str(directory / "rootfs"))
        runtime.once(("run", "--detach", "--bundle", str(target), f"{TARGET}-{runtime.name}"))()
    life = (
        ("create", "--bundle", str(directory), "bench-life"),
        ("start", "bench-life"),
        ("delete", "-f", "bench-life"),
    )
    return [
        ("OCI `run` of a bundle", {r.name: r.once(run(directory)) for r in runtimes}),
        ("OCI `create`, `start`, `delete`", {r.name: r.once(*life) for r in runtimes}),
        ("OCI `exec`", {r.name: r.once(("exec", f"{TARGET}-{r.name}", *TRUE)) for r in runtimes}),
        ("OCI `state`", {r.name: r.once(("state", f"{TARGET}-{r.name}")) for r in runtimes}),
    ]


def stop(runtimes: Iterable[Runtime]) -> None:
    for runtime in runtimes:
        subprocess.run([*runtime.words, "delete", "-f", f"{TARGET}-{runtime.name}"], capture_output=True)


def sizes(runtimes: Iterable[Runtime], directory: Path) -> None:
    """Peak memory of ``create``, and the smallest limit under which the bundle still runs."""
    print("\n| OCI runtime | peak memory of `create`, KiB | smallest memory limit, KiB |\n|---|---|---|")
    for runtime in runtimes:
        bundle(directory)
        try:
            peak = str(measure.peak_kib([*runtime.words, "create", "--bundle", str(directory), "bench-life"]))
        except measure.Failed:
            peak = "not here"  # crun without its view
        subprocess.run([*runtime.words, "delete", "-f", "bench-life"], capture_output=True)
        print(f"| {runtime.name} | {peak} | {smallest_limit(runtime, directory)} |")
    bundle(directory)


def smallest_limit(runtime: Runtime, directory: Path) -> str:
    for limit in LIMITS_KIB:
        bundle(directory, memory_kib=limit)
        try:
            runtime.once(run(directory))()
            return str(limit)
        except (measure.Failed, ValueError):
            subprocess.run([*runtime.words, "delete", "-f", "bench-true"], capture_output=True)
    return f"more than {LIMITS_KIB[-1]}"
