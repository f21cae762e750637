"""The build step: compiles the launcher into the package, and tags the wheel with this machine's architecture.

The launcher is one static executable that needs no Python at all, hence ``py3-none``: one wheel serves every version.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

LAUNCHER = os.path.join("src", "cloison", "libexec", "cloison-launcher")
NEEDS = (("make", "make"), ("cc gcc clang musl-gcc", "gcc"))


class LauncherHook(BuildHookInterface[Any]):
    """Runs for wheels, editable ones included; an sdist carries the C sources instead."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if not sys.platform.startswith("linux"):
            self.app.abort("cloison needs Linux: it is made of the Linux kernel's namespaces and control groups")
        for commands, package in NEEDS:
            if not any(map(shutil.which, [*commands.split(), os.environ.get("CC", "")])):
                needs = f"building cloison's launcher needs {commands.split()[0]}"
                self.app.abort(f"{needs}: apt-get install {package} libc6-dev musl-tools (musl-tools makes it smaller)")
        outcome = subprocess.run(["make", "-C", os.path.join(self.root, "launcher")], stdout=sys.stderr)
        if outcome.returncode or not os.access(os.path.join(self.root, LAUNCHER), os.X_OK):
            self.app.abort("the launcher could not be built; the compiler's messages are above")
        build_data["pure_python"] = False
        build_data["tag"] = "py3-none-" + sysconfig.get_platform().replace("-", "_").replace(".", "_")
