"""``inspect``: containers and images in Docker's JSON shape."""

from __future__ import annotations

from cloison.cli import output
from cloison.cli.access import access_flags
from cloison.cli.parser import Flag, Verb
from cloison.errors import CloisonError, InvalidArgument, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloison.cli.call import Call

    Look = Callable[[str], dict[str, object]]


def inspect(call: Call) -> int:
    """Containers first, then images; ``--type`` narrows. ``docker://…`` and its like are looked at where they are."""
    if _is_elsewhere(call):
        return _inspect_elsewhere(call)
    kind = call.text("type")
    if kind not in ("", "container", "image"):
        raise InvalidArgument(f'"{kind}" is not a valid value for --type', hint="there are container and image")
    looks: list[Look] = []
    if kind in ("", "container"):
        looks.append(_container(call))
    if kind in ("", "image"):
        looks.append(_image(call))
    return _show(call, looks, what=kind or "object")


def inspect_container(call: Call) -> int:
    return _show(call, [_container(call)], what="container")


def _is_elsewhere(call: Call) -> bool:
    return call.words[0].startswith(("docker://", "oci:", "oci-archive:", "docker-archive:", "dir:", "store:"))


def _inspect_elsewhere(call: Call) -> int:
    from cloison.cli.copy import inspect_elsewhere

    return inspect_elsewhere(call)


def inspect_image(call: Call) -> int:
    if _is_elsewhere(call):
        return _inspect_elsewhere(call)
    return _show(call, [_image(call)], what="image")


def _container(call: Call) -> Look:
    from cloison.cli.inspect_container import container_document

    return lambda name: container_document(call.engine.containers.find(name))


def _image(call: Call) -> Look:
    from cloison.cli.inspect_image import image_document

    images = call.engine.images

    def look(name: str) -> dict[str, object]:
        image = images.find(name, platform=call.text("platform"))
        try:
            comment = next((entry.comment for entry in images.history(image.id)), "")
        except CloisonError:  # a damaged configuration: there is more to be told than a comment
            comment = ""
        return image_document(image, images.list(), comment=comment, places=images.places(image))

    return look


def _show(call: Call, looks: Sequence[Look], *, what: str) -> int:
    """What was found on standard output (``[]`` when nothing was), what was not on standard error, status 1 then."""
    from cloison.cli.documents import dumps, dumps_indented
    from cloison.cli.template import parse_template

    form = call.text("format").strip()
    template = parse_template(form) if form not in ("", "json") else None
    found: list[dict[str, object]] = []
    failed: list[CloisonError] = []
    for name in call.words:
        try:
            found.append(_first(looks, name, what=what))
        except CloisonError as error:
            failed.append(error)
    if template is not None:
        for document in found:
            output.say(template.render(document))
    elif form == "json":
        output.say("\n".join(dumps(document) for document in found) if found else "[]")
    else:
        output.say(dumps_indented(found))
    for failure in failed:
        output.report(failure)
    return 1 if failed else 0


def _first(looks: Sequence[Look], name: str, *, what: str) -> dict[str, object]:
    missing: NotFound | None = None
    for look in looks:
        try:
            return look(name)
        except NotFound as error:
            missing = error
        except InvalidArgument:  # a container's name need not be a possible image's
            if len(looks) == 1:
                raise
    if len(looks) == 1 and missing is not None:
        raise missing
    raise NotFound(f"No such {what}: {name}")


_FORMAT = Flag("-f, --format", "string", help="Format output: json, or a Go TEMPLATE")
_ELSEWHERE = (
    *access_flags(),
    Flag("--config", help="Print the configuration of an image that is elsewhere"),
    Flag("-n, --no-tags", help="Leave out the tags of an image that is elsewhere"),
    Flag("--platform", "string", help="Inspect an image for this platform"),
    Flag("--raw", help="Print the manifest of an image that is elsewhere, byte for byte"),
)
_DETAILS = (
    "An image need not be here: docker://NAME, oci:DIRECTORY[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:NAME] "
    "and dir:DIRECTORY are looked at where they are."
)

INSPECT = Verb(
    "inspect", inspect, summary="Return low-level information on containers and images",
    usage="[OPTIONS] NAME|ID [NAME|ID...]", least=1, later="s size",
    details=_DETAILS,
    flags=(
        _FORMAT,
        Flag("--type", "string", help="Only inspect objects of the given type (container, image)"),
        *_ELSEWHERE,
    ),
)  # fmt: skip
CONTAINER_INSPECT = Verb(
    "container inspect", inspect_container, summary="Display detailed information on one or more containers",
    usage="[OPTIONS] CONTAINER [CONTAINER...]", least=1, flags=(_FORMAT,), later="s size",
)  # fmt: skip
IMAGE_INSPECT = Verb(
    "image inspect", inspect_image, summary="Display detailed information on one or more images",
    usage="[OPTIONS] IMAGE [IMAGE...]", least=1, flags=(_FORMAT, *_ELSEWHERE), details=_DETAILS,
)  # fmt: skip
