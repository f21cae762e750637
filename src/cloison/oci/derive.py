"""An image's history, and the configuration of an image that has one layer more, or one word less, than another.

Source: image-spec config.md, "history" and "Properties"; unknown fields of the old configuration are kept.
"""

from __future__ import annotations

from cloison.model.image import HistoryEntry
from cloison.oci.image import parse_config, plain_run_config, render_document
from cloison.oci.strict import parse_document, parse_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloison.model.image import ImageConfig
    from cloison.oci.fields import Fields

_MAX_HISTORY = 10_000
# what `ImageConfig` says of "config"; all other words of it are passed on
_RUN_FIELDS = (
    "User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "StopSignal",
)  # fmt: skip


def parse_history(config: bytes) -> Sequence[HistoryEntry]:
    """What made each layer, oldest first; empty when the configuration does not say. Raises: InvalidArgument."""
    fields = parse_document(config, document="image configuration")
    return fields.objects("history", _parse_entry, limit=_MAX_HISTORY)


def _parse_entry(fields: Fields) -> HistoryEntry:
    return HistoryEntry(
        created=fields.text("created", default=""), created_by=fields.text("created_by", default=""),
        author=fields.text("author", default=""), comment=fields.text("comment", default=""),
        is_empty=fields.flag("empty_layer"),
    )  # fmt: skip


def derive_config(base: bytes, *, config: ImageConfig, diff_id: str, entry: HistoryEntry) -> bytes:
    """The configuration blob of ``base``'s image with one layer on top ("" is none), to be run as ``config`` says.

    Raises: InvalidArgument when ``base`` is no configuration.
    """
    parse_config(base)
    value = parse_json(base, document="image configuration")
    assert isinstance(value, dict)  # parse_config has seen to it
    run = {key: item for key, item in (value.get("config") or {}).items() if key not in _RUN_FIELDS}
    value["config"] = {**run, **plain_run_config(config)}
    value["history"] = [*_whole_history(value), _plain_entry(entry.replace(is_empty=not diff_id))]
    if diff_id:
        value["rootfs"] = {"type": "layers", "diff_ids": [*value["rootfs"]["diff_ids"], diff_id]}
    value["created"] = entry.created
    if entry.author:
        value["author"] = entry.author
    # what docker notes of the container that the layer came from: it is another one now
    for key in ("container", "container_config", "id", "parent"):
        value.pop(key, None)
    return render_document(value)


def _whole_history(value: dict[str, object]) -> list[object]:
    """The old history; one that is missing, or tells of too few layers, must not give its entries to others."""
    history = value.get("history")
    known = [entry for entry in history if isinstance(entry, dict)] if isinstance(history, list) else []
    rootfs = value["rootfs"]
    assert isinstance(rootfs, dict)
    layers = len(rootfs["diff_ids"])
    told = sum(not entry.get("empty_layer") for entry in known)
    return [*known, *({} for _ in range(layers - told))]


def _plain_entry(entry: HistoryEntry) -> dict[str, object]:
    value: dict[str, object] = {
        "created": entry.created, "created_by": entry.created_by, "author": entry.author, "comment": entry.comment,
        "empty_layer": entry.is_empty,
    }  # fmt: skip
    return {key: item for key, item in value.items() if item}
