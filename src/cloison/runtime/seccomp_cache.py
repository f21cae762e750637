"""Compiled seccomp filters, kept on disk: a run finds its filter by name, with one stat(2) and no compiler loaded."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.linux.seccomp import Profile

# Part of the file's name: to be raised when the profile, or what the compiler makes of it, changes. A test holds the
# two together, since a stale number would leave yesterday's filter in use.
PROFILE_VERSION = 2


def default_filter(cache_dir: str, *, capabilities_mask: int) -> str:
    """Path of the default profile's program for a container with these capabilities; compiled when it is missing.

    Raises: Unsupported on a machine without tables; Denied, Unavailable when it cannot be written.
    """
    path = f"{cache_dir}/default-{PROFILE_VERSION}-{capabilities_mask:x}-{os.uname().machine}.bpf"
    if not _is_there(path):
        from cloison.runtime.seccomp_profile import default_profile

        _compile(path, default_profile(), capabilities_mask=capabilities_mask)
    return path


def custom_filter(cache_dir: str, *, profile_text: str, capabilities_mask: int) -> str:
    """Path of the program for a profile in Docker's or OCI's JSON format, found again by the text's SHA-256.

    Raises: InvalidArgument when the profile makes no sense; and as `default_filter`.
    """
    from hashlib import sha256

    digest = sha256(profile_text.encode()).hexdigest()
    major, minor = _kernel()  # profiles may ask for a kernel version
    name = f"custom-{PROFILE_VERSION}-{digest}-{capabilities_mask:x}-{major}.{minor}-{os.uname().machine}.bpf"
    path = f"{cache_dir}/{name}"
    if not _is_there(path):
        from cloison.linux.seccomp_json import parse_docker_profile

        _compile(path, parse_docker_profile(profile_text), capabilities_mask=capabilities_mask)
    return path


def _is_there(path: str) -> bool:
    try:
        return os.stat(path, follow_symlinks=False).st_size > 0
    except FileNotFoundError:
        return False


def _compile(path: str, profile: Profile, *, capabilities_mask: int) -> None:
    from cloison.linux.seccomp import compile_profile
    from cloison.store.atomic import make_private_directory, write_file

    program = compile_profile(
        profile, architecture=os.uname().machine, capabilities=capabilities_mask, kernel=_kernel()
    )  # fmt: skip
    make_private_directory(os.path.dirname(path))
    # A cache: after a power cut it is made again, and an empty file counts as none.
    write_file(path, program, durable=False)


def _kernel() -> tuple[int, int]:
    """Major and minor of the running kernel, of a release like ``6.1.0-49-cloud-amd64``."""
    numbers = [
        int(digits) if (digits := "".join(c for c in part if c.isdigit())) else 0
        for part in os.uname().release.split("-")[0].split(".")
    ]
    return numbers[0], numbers[1] if len(numbers) > 1 else 0
