"""``image prune``, ``container prune``, ``system prune``: asked first, then told what went and how much came free."""

from __future__ import annotations

import sys
import time

from cloison.cli import output
from cloison.cli.listing import parse_filters
from cloison.cli.parser import Flag, Verb
from cloison.errors import InvalidArgument
from cloison.model.units import parse_when_ns, render_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloison.cli.call import Call
    from cloison.engine.pruning import PruneFilter
    from cloison.model.usage import Pruned

FILTERS = ("label", "label!", "until")


def prune_images(call: Call) -> int:
    """Images without a name; with --all, or a budget, every image that no container was made from."""
    only, budget = _only(call, dangling=True), call.number("keep-storage")
    everything = _wants_all(call) or budget is not None
    what = "all images without at least one container associated to them" if everything else "all dangling images"
    if budget is not None:
        what = f"the longest unused images until the rest takes no more than {render_size(budget)}"
    if not _is_agreed(call, [f"This will remove {what}."]):
        return 0
    pruned = call.engine.images.prune(all=everything, only=only, keep_bytes=-1 if budget is None else budget)
    _tell([("Deleted Images", pruned)], reclaimed=pruned.reclaimed_bytes)
    return 0


def prune_containers(call: Call) -> int:
    only = _only(call)
    if not _is_agreed(call, ["This will remove all stopped containers."]):
        return 0
    pruned = call.engine.containers.prune(only)
    _tell([("Deleted Containers", pruned)], reclaimed=pruned.reclaimed_bytes)
    return 0


def prune_system(call: Call) -> int:
    only, everything, volumes = _only(call), call.switch("all"), call.switch("volumes")
    if volumes and only.until_ns:
        raise InvalidArgument('the "until" filter is not supported with "--volumes"')
    images = "images without at least one container associated to them" if everything else "dangling images"
    warning = [
        "This will remove:",
        "  - all stopped containers",
        *(["  - all anonymous volumes not used by at least one container"] if volumes else []),
        f"  - all {images}",
        "  - what interrupted commands have left",
    ]
    if not _is_agreed(call, warning):
        return 0
    pruned = call.engine.system.prune(all=everything, volumes=volumes, only=only)
    sections = [
        ("Deleted Containers", pruned.containers), ("Deleted Volumes", pruned.volumes),
        ("Deleted Images", pruned.images),
    ]  # fmt: skip
    _tell(sections, reclaimed=pruned.reclaimed_bytes)
    return 0


def _wants_all(call: Call) -> bool:
    """``--all``, or docker's older word for it: ``--filter dangling=false``."""
    words = parse_filters(call.texts("filter"), (*FILTERS, "dangling")).get("dangling", [])
    if len(set(words)) > 1 or not {"true", "1", "false", "0"}.issuperset(words):
        raise InvalidArgument(f"invalid filter 'dangling={words[-1]}'", hint="true or false")
    only_dangling = bool(words) and words[0] in ("true", "1")
    if call.switch("all") and only_dangling:  # docker removes all then
        raise InvalidArgument("--all and --filter dangling=true contradict each other", hint="leave one of them out")
    return call.switch("all") or bool(words) and not only_dangling


def _only(call: Call, *, dangling: bool = False) -> PruneFilter:
    from cloison.engine.pruning import PruneFilter

    filters = parse_filters(call.texts("filter"), (*FILTERS, "dangling") if dangling else FILTERS)
    moments = [_moment(text) for text in filters.get("until", ())]
    if len(moments) > 1:
        raise InvalidArgument("invalid filter 'until'", why="more than one of them")
    return PruneFilter(
        until_ns=moments[0] if moments else 0, labels=tuple(filters.get("label", ())),
        without_labels=tuple(filters.get("label!", ())),
    )  # fmt: skip


def _moment(text: str) -> int:
    try:
        return parse_when_ns(text, now_ns=time.time_ns())
    except ValueError as err:
        raise InvalidArgument(f"invalid filter 'until={text}'", why=str(err)) from None


def _is_agreed(call: Call, warning: Sequence[str]) -> bool:
    """``--force``, or a yes on standard input; the end of it is a no."""
    if call.switch("force"):
        return True
    output.write_all(
        output.STDOUT, "\n".join([f"WARNING! {warning[0]}", *warning[1:], "Are you sure you want to continue? [y/N] "])
        .encode()
    )  # fmt: skip
    answer = sys.stdin.readline()
    if not answer.endswith("\n"):
        output.say("")
    return answer.strip().lower() in ("y", "yes")


def _tell(sections: Sequence[tuple[str, Pruned]], *, reclaimed: int) -> None:
    lines: list[str] = []
    for title, pruned in sections:
        if pruned.removed:
            lines += [f"{title}:", *pruned.removed, ""]
    output.say("\n".join([*lines, f"Total reclaimed space: {render_size(reclaimed)}"]))


_FORCE = Flag("-f, --force", help="Do not prompt for confirmation")
_FILTER = Flag("--filter", "list", help="Provide filter values (e.g. until=24h, label=KEY, label!=KEY=VALUE)")

IMAGES = Verb(
    "image prune", prune_images, summary="Remove unused images", usage="[OPTIONS]", most=0,
    flags=(
        Flag("-a, --all", help="Remove all unused images, not just dangling ones"), _FILTER, _FORCE,
        Flag("--keep-storage", "bytes", help="Remove unused images, the longest unused first, down to this size"),
    ),
    details="What interrupted commands have left goes, too. CLOISON_KEEP_STORAGE is a budget that every pull, load, "
    "import and commit keeps by itself.",
)  # fmt: skip
CONTAINERS = Verb(
    "container prune", prune_containers, summary="Remove all stopped containers", usage="[OPTIONS]", most=0,
    flags=(_FILTER, _FORCE),
)  # fmt: skip
SYSTEM = Verb(
    "system prune", prune_system, summary="Remove unused data", usage="[OPTIONS]", most=0,
    flags=(
        Flag("-a, --all", help="Remove all unused images, not just dangling ones"), _FILTER, _FORCE,
        Flag("--volumes", help="Prune anonymous volumes"),
    ),
)  # fmt: skip
