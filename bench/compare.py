"""``make bench``: cloison beside runc, crun, docker and podman of this machine, in the same minutes, in Markdown.

Two tempos, because they differ: back to back, and one start every 300 ms (an idle machine pays for RCU grace periods
that a busy one does not notice). Figures are milliseconds: median / 95th percentile (ratio to cloison's median).
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import images
import measure
import runtimes
import unpacking
from measure import Once, Sample
from peers import OUR_RUN_ROOT, TRUE, Cloison, Docker, Peer, Podman, Runtime, Sdk, missing, rootfs_tar

from cloison.model.settings import settings_for

INSIDE = "CLOISON_BENCH_INSIDE"
PEERS_WRITE_TO = ("/run", "/etc/docker", "/var/lib/cni")
TEMPOS = (("back to back", 0.0), ("one per 300 ms", 0.3))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=30, help="runs of each peer, row and tempo (default 30)")
    parser.add_argument(
        "--parallel", type=int, default=20, help="rounds of 50 parallel runs (default 20; 0 leaves it out)"
    )
    parser.add_argument("--files", type=int, default=20_000, help="files of the layer unpacked (0 leaves it out)")
    parser.add_argument("--only-unpack", action="store_true", help="the unpacking of layers alone")
    parser.add_argument("--images", type=int, default=0, metavar="MB",
                        help="pull, push, save and load an image of so many megabytes (1500 is what docs/performance.md"
                             " tells of; --runs 3 will do), and nothing else")  # fmt: skip
    parser.add_argument("--disk", action="store_true", help="images and layers on /var/tmp instead of on a tmpfs")
    parser.add_argument("--only", default="", help="comma-separated peers: cloison, docker, podman, runc, crun")
    parser.add_argument("--only-oci", action="store_true", help="the OCI runtimes alone")
    options = parser.parse_args()
    if os.geteuid() != 0:
        return fail("the benchmark needs root: sudo make bench")
    if not os.environ.get(INSIDE):
        # A network and a mount namespace of our own, and a /run: whatever the peers set up there ends with us
        os.environ[INSIDE] = "1"
        os.execvp("unshare", ["unshare", "--net", "--mount", "--propagation", "private", sys.executable, *sys.argv])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for place in PEERS_WRITE_TO:
        os.makedirs(place, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "none", place], check=True)
    groups = cgroup_directories()
    directory = Path(tempfile.mkdtemp(prefix="cloison-bench.", dir="/var/tmp"))
    if not options.disk:
        # everybody's images and layers: engines are compared here, not what this machine's disk does with directories
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0700", "none", str(directory)], check=True)
    try:
        return compare(directory, options)
    finally:
        subprocess.run(["umount", "-R", str(directory)], capture_output=True)
        shutil.rmtree(directory, ignore_errors=True)
        for left in sorted(cgroup_directories() - groups, reverse=True):
            with suppress(FileNotFoundError):
                os.rmdir(left)


def cgroup_directories() -> set[str]:
    """Those of the engines compared here; anybody else's are none of our business."""
    own = {"docker", "libpod_parent", "bench-true", "bench-life", "cloison-oci-bench-true", "cloison-oci-bench-life"}
    own |= {f"{runtimes.TARGET}-{name}" for name in ("runc", "crun")} | {f"cloison-oci-{runtimes.TARGET}-cloison"}
    own |= {settings_for({"CLOISON_RUN_ROOT": OUR_RUN_ROOT}).cgroup_parent}
    return {top for top, _, _ in os.walk("/sys/fs/cgroup") if own.intersection(top.split("/")[4:6])}


def fail(message: str) -> int:
    print(message, file=sys.stderr)
    return 1


def compare(directory: Path, options: argparse.Namespace) -> int:
    if options.only_unpack:
        print_machine()
        unpacking.rows(directory, files=options.files, runs=min(options.runs, 5), keep=options.disk)
        return 0
    wanted = set(filter(None, options.only.split(",")))
    archive = rootfs_tar(directory)
    if options.images:
        return compare_images(directory, archive, wanted, options)
    ours = Cloison()
    ours.start(directory, archive)
    engines: list[Peer] = [ours]
    bare: dict[str, Runtime] = {}
    print_machine()
    try:
        for peer, programs in (
            (Docker(), ("docker", "dockerd", "containerd")),
            (Podman(), ("podman", "runc", "conmon")),
        ):
            if not options.only_oci and (not wanted or peer.name in wanted):
                engines += start(peer, programs, directory=directory, archive=archive)
        bare |= runtimes.find_runtimes(directory, wanted)
        latencies(engines, bare, directory=directory, options=options, sdk=Sdk(ours))
        memory(engines)
        runtimes.sizes(bare.values(), directory)
        if options.parallel and not options.only_oci:
            parallel(ours, rounds=options.parallel)
    finally:
        runtimes.stop(bare.values())
        for engine in engines:
            engine.stop()
    return 0


def compare_images(directory: Path, archive: Path, wanted: set[str], options: argparse.Namespace) -> int:
    print_machine()
    engines = images.engines(directory, start, wanted, archive)
    try:
        images.rows(directory, engines, megabytes=options.images, runs=options.runs)
    finally:
        for engine in engines:
            engine.stop()
    return 0


def start(peer: Peer, programs: tuple[str, ...], *, directory: Path, archive: Path) -> list[Peer]:
    """The peer, ready; or a line that says why it takes no part."""
    if lacking := missing(*programs):
        print(f"- {peer.name}: not installed ({', '.join(lacking)})")
        return []
    try:
        peer.start(directory, archive)
        return [peer]
    except (RuntimeError, OSError, subprocess.SubprocessError) as err:
        print(f"- {peer.name}: takes no part: {err}")
        peer.stop()
        return []


def latencies(
    engines: list[Peer], bare: dict[str, Runtime], *, directory: Path, options: argparse.Namespace, sdk: Sdk
) -> None:
    for engine in engines:
        engine.call(
            "run",
            "-d",
            "--name",
            "target",
            "--network",
            "none",
            *engine.run_flags,
            "bench",
            "/bin/busybox",
            "sleep",
            "3600",
        )
    on_bundle = {name: runtime.once(runtimes.run(directory)) for name, runtime in bare.items() if name != "cloison"}
    rows: list[tuple[str, dict[str, Once]]] = [
        ("run, no network, in process or on a bundle", {"cloison": sdk, **on_bundle}),
        ("`run --rm --network none IMG true`", {e.name: e.run("--network", "none") for e in engines}),
        ("`run --rm IMG true`, bridge", {e.name: e.run() for e in engines}),
        ("`exec C true`", {e.name: e.once("exec", "target", *TRUE) for e in engines}),
        ("`ps`", {e.name: e.once("ps") for e in engines}),
    ]
    rows = [*(rows if not options.only_oci else ()), *runtimes.rows(bare.values(), directory)]
    peers = ["cloison", *(e.name for e in engines[1:]), *on_bundle]
    print(f"\n| what | tempo | {' | '.join(peers)} |\n|---|---|{'---|' * len(peers)}")
    for title, contenders in rows:
        for tempo, period in TEMPOS:
            samples = measure.take_turns(contenders, runs=options.runs, period_s=period)
            print(f"| {title} | {tempo} | {' | '.join(cells(samples, peers))} |", flush=True)
    sdk.stop()


def cells(samples: list[Sample], peers: list[str]) -> list[str]:
    by_name = {sample.peer: sample for sample in samples}
    reference = by_name["cloison"].quantile(0.5)
    return [render(by_name[peer], reference) if peer in by_name else "" for peer in peers]


def render(sample: Sample, reference: float) -> str:
    median = sample.quantile(0.5)
    ratio = "" if sample.peer == "cloison" else f" ({median / reference:.1f}×)"
    return f"{median * 1e3:.1f} / {sample.quantile(0.95) * 1e3:.1f}{ratio}"


def memory(engines: list[Peer]) -> None:
    """Of each engine's own processes per running container; ``target`` is still up."""
    print("\n| memory per running container (PSS) | KiB |\n|---|---|")
    for engine, process in zip(engines, monitors(engines), strict=True):
        pids = measure.descendants_named(process)
        total = sum(map(measure.pss_kib, pids))
        print(f"| {engine.name}: {process} | {total} |" if pids else f"| {engine.name}: {process} | none found |")
        engine.call("rm", "-f", "target")


def monitors(engines: list[Peer]) -> list[str]:
    return [{"cloison": "cloison-launcher", "docker": "containerd-shim", "podman": "conmon"}[e.name] for e in engines]


def parallel(ours: Cloison, *, rounds: int) -> None:
    """``rounds`` × 50 runs at once: how many a second, and does every one of them succeed?"""
    argv = [*ours.words, "run", "--rm", "--network", "none", "bench", *TRUE]
    started, failures = time.perf_counter(), 0
    for _ in range(rounds):
        pids = [measure.spawn(argv, environ=ours.environ) for _ in range(50)]
        failures += sum(os.waitpid(pid, 0)[1] != 0 for pid in pids)
    elapsed = time.perf_counter() - started
    left = ours.call("ps", "-aq").split()
    print(f"\n{rounds} × 50 parallel `run --rm --network none`: {rounds * 50 / elapsed:.0f} a second, "
          f"{failures} failures, {len(left)} containers left over")  # fmt: skip


def print_machine() -> None:
    cgroups = "v2" if Path("/sys/fs/cgroup/cgroup.controllers").exists() else "v1 or hybrid"
    mounts = len(Path("/proc/self/mountinfo").read_text().splitlines())
    host = f"Linux {platform.release()} {platform.machine()}, {os.cpu_count()} CPUs, cgroups {cgroups}, {mounts} mounts"
    print(f"{host}, Python {platform.python_version()}")
    for argv in (["docker", "--version"], ["podman", "--version"], ["runc", "--version"], ["crun", "--version"]):
        if not missing(argv[0]):
            print("- " + subprocess.run(argv, capture_output=True, text=True).stdout.splitlines()[0])


if __name__ == "__main__":
    sys.exit(main())
