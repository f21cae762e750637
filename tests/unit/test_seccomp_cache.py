"""Compiled filters on disk."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import classic_bpf as bpf
from cloison.errors import InvalidArgument
from cloison.linux import seccomp
from cloison.linux.capabilities import CAPABILITIES, mask_of
from cloison.linux.seccomp import Condition, Profile, Rule, compile_profile, errno_action
from cloison.runtime import seccomp_cache
from cloison.runtime.seccomp_cache import custom_filter, default_filter
from cloison.runtime.seccomp_profile import default_profile

SOURCES = Path(seccomp_cache.__file__).parents[2]

# The programs that PROFILE_VERSION stands for: whoever changes the profile or the compiler raises the one and this.
VERSION = 2
DIGEST = "8954071aa6103b9fb571c39005246fa66cf7227e0ffa3640680258a4ffb667dd"


def test_a_changed_profile_has_a_new_version() -> None:
    everything = b"".join(
        compile_profile(default_profile(), architecture=machine, capabilities=mask)
        for machine in ("x86_64", "aarch64")
        for mask in (0, mask_of(CAPABILITIES), *(1 << bit for bit in range(len(CAPABILITIES))))
    )
    operators = ("==", "!=", "<", "<=", ">", ">=")
    conditions = [Condition(argument=2, operator=op, value=v) for op in operators for v in (7, 7 << 40)]
    custom = tuple(Rule(names=("read", "socket"), action=0, conditions=(condition,)) for condition in conditions)
    everything += compile_profile(Profile(default=seccomp.ALLOW, rules=custom), architecture="x86_64")
    found = hashlib.sha256(everything).hexdigest()
    hint = "raise PROFILE_VERSION, then VERSION and DIGEST here"
    assert (seccomp_cache.PROFILE_VERSION, found) == (VERSION, DIGEST), hint


def test_a_miss_makes_the_file_that_the_compiler_would_make(tmp_path: Path) -> None:
    cache = tmp_path / "made" / "here"
    path = default_filter(str(cache), capabilities_mask=0x804)
    machine = os.uname().machine
    assert Path(path).read_bytes() == compile_profile(default_profile(), architecture=machine, capabilities=0x804)
    assert os.listdir(cache) == [Path(path).name]  # no temporary file is left


def test_a_hit_compiles_nothing(tmp_path: Path) -> None:
    path = default_filter(str(tmp_path), capabilities_mask=0)
    before = os.stat(path)
    script = (
        "import sys; from cloison.runtime.seccomp_cache import default_filter\n"
        f"assert default_filter({str(tmp_path)!r}, capabilities_mask=0) == {path!r}\n"
        "assert not [name for name in sys.modules if 'seccomp_profile' in name or name.endswith('linux.seccomp')]\n"
        "assert not {'hashlib', 'json', 're', 'typing'} & set(sys.modules)"
    )
    environ = {"PYTHONPATH": str(SOURCES)}
    subprocess.run([sys.executable, "-S", "-c", script], check=True, env=environ)
    assert os.stat(path).st_mtime_ns == before.st_mtime_ns


def test_capabilities_have_filters_of_their_own(tmp_path: Path) -> None:
    plain = default_filter(str(tmp_path), capabilities_mask=0)
    granted = default_filter(str(tmp_path), capabilities_mask=mask_of(("SYS_ADMIN",)))
    assert plain != granted
    assert Path(plain).read_bytes() != Path(granted).read_bytes()


def test_an_empty_file_counts_as_none(tmp_path: Path) -> None:
    path = Path(default_filter(str(tmp_path), capabilities_mask=0))
    whole = path.read_bytes()
    path.write_bytes(b"")  # a power cut between rename and data
    assert default_filter(str(tmp_path), capabilities_mask=0) == str(path)
    assert path.read_bytes() == whole


def test_a_custom_profile_is_compiled_once_for_each_text(tmp_path: Path) -> None:
    text = '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]}'
    first = custom_filter(str(tmp_path), profile_text=text, capabilities_mask=0)
    again = custom_filter(str(tmp_path), profile_text=text, capabilities_mask=0)
    other = custom_filter(str(tmp_path), profile_text=text.replace("mkdir", "rmdir"), capabilities_mask=0)
    assert first == again != other
    program = bpf.parse(Path(first).read_bytes())
    assert bpf.run(program, 83) == errno_action(1)
    assert bpf.run(program, 84) == seccomp.ALLOW


def test_a_senseless_custom_profile_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument):
        custom_filter(str(tmp_path), profile_text="{", capabilities_mask=0)
    assert not os.listdir(tmp_path)
