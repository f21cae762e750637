"""Runs the validation programs of opencontainers/runtime-tools against a runtime, and counts.

    runtime_tools_suite.py [--only PROGRAM,...] [--json RESULTS] CHECKOUT RUNTIME

Needs root and a working tree in which ``make runtimetest validation-executables`` was done. The programs know no other
state directory than the runtime's default one, so all of it happens in a mount namespace of its own with an empty
``/run``, and each program in one more: runc leaves mounts behind for a container without a mount namespace. Containers
that a program leaves behind are deleted after it. With VERBOSE in the environment what the programs say is shown.

A line of the result is ``ok/not ok/skipped``, then the exit status if it is not 0, then E where a program that plans no
check reports an error all the same.

docs/conformance.md has the results.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PROGRAM_TIMEOUT_S = 60.0
PRIVATELY = ("unshare", "-m", "--propagation", "private")
_CHECK = re.compile(r"^(ok|not ok) \d+(.*)$", re.MULTILINE)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkout", type=Path, help="a working tree of opencontainers/runtime-tools, programs built")
    parser.add_argument("runtime", help="the command to judge")
    parser.add_argument("--only", default="", help="programs, with commas, as in 'hooks,kill'")
    parser.add_argument("--json", type=Path, help="write every program's result there")
    options = parser.parse_args()
    if not os.environ.get("CLOISON_RUNTIME_TOOLS"):  # a mount namespace of our own
        os.environ["CLOISON_RUNTIME_TOOLS"] = "1"
        os.execvp("unshare", [*PRIVATELY, sys.executable, *sys.argv])
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "run", "/run"], check=True)
    runtime = os.path.abspath(shutil.which(options.runtime) or options.runtime)
    wanted = set(filter(None, options.only.split(",")))
    results = {}
    for program in sorted(options.checkout.resolve().glob("validation/*/*.t")):
        name = program.stem
        if not wanted or name in wanted:
            results[name] = run_program(program, runtime=runtime, checkout=options.checkout)
            print(f"{name}: {results[name]}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    clean = sum(bool(re.fullmatch(r"\d+/0/\d+", result)) for result in results.values())
    print(f"{clean} of {len(results)} programs without a fault")
    return 0


def run_program(program: Path, *, runtime: str, checkout: Path) -> str:
    with tempfile.TemporaryDirectory(prefix="runtime-tools-") as scratch:
        os.chmod(scratch, 0o755)  # for user namespaces
        environment = {"PATH": os.environ["PATH"], "HOME": "/root", "RUNTIME": runtime, "TMPDIR": scratch}
        child = subprocess.Popen(
            [*PRIVATELY, program], cwd=checkout, env=environment, stdin=subprocess.DEVNULL, text=True, errors="replace",
            stdout=(output := open(f"{scratch}/output", "w+")), stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            status = str(child.wait(PROGRAM_TIMEOUT_S))
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, 9)
            child.wait()
            status = "timeout"
        remove_left_containers(runtime)
        output.seek(0)
        said = output.read()
    if os.environ.get("VERBOSE"):
        print(said)
    return judge(said, status=status)


def judge(said: str, *, status: str) -> str:
    checks = _CHECK.findall(said)
    skipped = sum(verdict == "ok" and "# SKIP" in rest for verdict, rest in checks)
    failed = sum(verdict == "not ok" for verdict, _ in checks)
    result = f"{len(checks) - failed - skipped}/{failed}/{skipped}"
    if status != "0":
        result += f" rc={status}"
    return result + " E" * (not checks and status == "0" and '"error": ' in said)


def remove_left_containers(runtime: str) -> None:
    listed = subprocess.run([runtime, "list", "-q"], capture_output=True, text=True)
    for name in listed.stdout.split():
        subprocess.run([runtime, "delete", "--force", name], capture_output=True)


if __name__ == "__main__":
    sys.exit(main())
