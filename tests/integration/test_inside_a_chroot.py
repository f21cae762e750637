"""cloison started in a chroot: the wall must be the mount namespace's own root, not merely a changed root directory.

pivot_root(2) replaces the *caller's* root mount. In a chroot that is not the namespace's, and then setns(2), which goes
to the namespace's root, or the old chroot escape, would find the host's files.
"""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from harness import Cloison, Result

# Root and cwd part ways, and then ".." leads up as far as the mount namespace goes
ESCAPE = "import os; os.mkdir('/x'); f = os.open('/', 0); os.chroot('/x'); os.fchdir(f)\n" + (
    "for _ in range(64): os.chdir('..')\nos.chroot('.'); print(os.path.exists('{mark}'))"
)


def chrooted(cloison: Cloison, top: Path, script: str) -> Result:
    """Run a shell script in which ``cloison`` is the command, with ``top``, a copy of /, as root directory."""
    define = f'cloison() {{ {" ".join(map(shlex.quote, cloison.argv()))} "$@"; }}\n'
    inner = ["chroot", str(top), "bash", "-c", define + script]
    bind = f"mount --rbind / {top} && exec {' '.join(map(shlex.quote, inner))}"
    return subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "bash", "-c", bind],
        capture_output=True, text=True, timeout=100, env=cloison.roots.environ, stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """A file of the host that no container may see."""
    file = tmp_path / "secret"
    file.write_text("of the host\n")
    return file


def test_exec_sees_the_containers_files_and_not_the_hosts(
    cloison: Cloison, busybox_image: str, tmp_path: Path, mark: Path
) -> None:
    (top := tmp_path / "top").mkdir()
    script = f"""
        cloison run -d --name inner --network none {busybox_image} sleep 300 >/dev/null || exit 1
        cloison exec inner cat /proc/1/comm
        cloison exec inner ls {mark} && echo BREACH
        cloison rm -f inner
    """
    result = chrooted(cloison, top, script)
    assert result.stdout == "sleep\ninner\n", result.stderr


def test_the_old_chroot_escape_ends_at_the_containers_root(
    cloison: Cloison, busybox_image: str, tmp_path: Path, mark: Path
) -> None:
    (top := tmp_path / "top").mkdir()
    escape = shlex.quote(ESCAPE.format(mark=mark))
    result = chrooted(cloison, top, f"cloison run --rm --network none host/base python3 -c {escape}")
    assert result.stdout == "False\n", result.stderr
    # the control: the same program, as root of the host and of nothing else, does find the file
    control = ESCAPE.format(mark=mark).replace("/x", str(tmp_path / "other"))
    assert subprocess.run(["python3", "-c", control], capture_output=True, text=True).stdout == "True\n"
