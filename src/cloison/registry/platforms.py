"""Which manifest of an index runs on a machine (image-spec image-index.md, "platform"; variants as in containerd)."""

from __future__ import annotations

import os

from cloison.errors import InvalidArgument, NotFound
from cloison.oci.image import Platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloison.oci.image import Descriptor

_MACHINES = {
    "x86_64": ("amd64", ""), "aarch64": ("arm64", "v8"), "armv7l": ("arm", "v7"), "armv6l": ("arm", "v6"),
    "i686": ("386", ""), "i386": ("386", ""), "riscv64": ("riscv64", ""), "ppc64le": ("ppc64le", ""),
    "s390x": ("s390x", ""), "loongarch64": ("loong64", ""), "mips64": ("mips64le", ""),
}  # fmt: skip
_SYNONYMS = {
    "x86_64": ("amd64", ""), "x86-64": ("amd64", ""), "aarch64": ("arm64", "v8"), "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"), "i386": ("386", ""),
}  # fmt: skip
# what an architecture means when no variant is said
_DEFAULT_VARIANT = {"arm64": "v8", "arm": "v7", "amd64": "v1"}


def parse_platform(text: str, *, machine: str = "") -> Platform:
    """``os[/arch[/variant]]``, or an architecture alone; "" is this machine. Raises: InvalidArgument."""
    here = _of_machine(machine or os.uname().machine)
    if not text:
        return here
    words = text.lower().split("/")
    if len(words) > 3 or not all(
        word and word.replace("-", "").replace("_", "").replace(".", "").isalnum() for word in words
    ):
        raise InvalidArgument(f"invalid platform {text!r}", hint="platforms look like linux/amd64 or linux/arm64/v8")
    if len(words) == 1:
        if words[0] in ("linux", "windows", "darwin", "freebsd"):
            return here.replace(os=words[0])
        words.insert(0, "linux")
    architecture, variant = _SYNONYMS.get(words[1], (words[1], ""))
    return Platform(os=words[0], architecture=architecture, variant=words[2] if len(words) == 3 else variant)


def _of_machine(machine: str) -> Platform:
    architecture, variant = _MACHINES.get(machine, (machine, ""))
    return Platform(os="linux", architecture=architecture, variant=variant)


def render_platform(platform: Platform) -> str:
    """``linux/arm64/v8``."""
    return "/".join(filter(None, (platform.os or "unknown", platform.architecture or "unknown", platform.variant)))


def choose(descriptors: Sequence[Descriptor], wanted: Platform, *, name: str) -> Descriptor:
    """The first of the best manifests for ``wanted``; ``name`` is the image's, for the message. Raises: NotFound."""
    ranked = [
        (rank, position, descriptor)
        for position, descriptor in enumerate(descriptors)
        if descriptor.platform is not None and (rank := _rank(descriptor.platform, wanted)) is not None
    ]
    if ranked:
        return min(ranked, key=lambda entry: entry[:2])[2]
    if len(descriptors) == 1 and descriptors[0].platform is None:
        return descriptors[0]  # nothing to choose from; the image's configuration says what it is
    known = sorted(
        {render_platform(d.platform) for d in descriptors if d.platform and d.platform.os not in ("", "unknown")}
    )
    raise NotFound(
        f"no image for platform {render_platform(wanted)} in {name}",
        why="it has " + (", ".join(known[:20]) if known else "none that says its platform"),
        hint="choose one with --platform" if known else "",
    )


def runs_on(has: Platform, wanted: Platform) -> bool:
    """Whether programs for the platform ``has`` run where ``wanted`` ones do; who does not say is believed to."""
    return not has.architecture or _rank(has, wanted) is not None


def _rank(has: Platform, wanted: Platform) -> int | None:
    """0 is exact, more is worse, None does not run there: an older variant runs on a newer machine alone."""
    if (has.os, has.architecture) != (wanted.os, wanted.architecture):
        return None
    offered, asked = _level(has), _level(wanted)
    if offered is None or asked is None:
        return 0 if has.variant == wanted.variant else None
    return asked - offered if offered <= asked else None


def _level(platform: Platform) -> int | None:
    variant = platform.variant or _DEFAULT_VARIANT.get(platform.architecture, "v0")
    number = variant[1:]
    return int(number) if variant[0] == "v" and number.isascii() and number.isdigit() and len(number) < 4 else None
