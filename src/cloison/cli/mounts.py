"""``-v``, ``--mount`` and ``--tmpfs`` (docker's parsers). Pure, but relative paths mean our working directory."""

from __future__ import annotations

import os

from cloison.model.container import MountRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PROPAGATIONS = frozenset(("private", "rprivate", "shared", "rshared", "slave", "rslave"))
# Labels of SELinux and hints of macOS: without effect where there is neither, so docker takes them everywhere
_NO_EFFECT = frozenset(("rw", "z", "Z", "consistent", "cached", "delegated", "rbind"))
_RECURSIONS = ("enabled", "disabled", "writable", "readonly")
_NAME_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")


def parse_volume(text: str) -> MountRequest:
    """``[SOURCE:]TARGET[:OPTIONS]``. A source with a slash or a leading dot is a path, else a volume's name.

    Raises: ValueError with the reason.
    """
    parts = text.split(":")
    if len(parts) > 3 or not text:
        raise ValueError(f"invalid volume specification: '{text}'")
    if len(parts) == 1:
        return MountRequest(type="volume", target=_target(text, text))
    source, target = parts[0], parts[1]
    if not source or not target:
        raise ValueError(f"invalid volume specification: '{text}'")
    options = _volume_options(parts[2] if len(parts) == 3 else "", text)
    if source.startswith(("/", ".", "~")):
        path = os.path.abspath(source) if source[0] == "." else source
        if source[0] == "~":
            raise ValueError(
                f"invalid volume specification: '{text}': ~ is for a shell to expand; give an absolute path"
            )
        return MountRequest(
            type="bind", source=path, target=_target(target, text), create_source=True,
            read_only=options["read_only"], propagation=options["propagation"],
        )  # fmt: skip
    return MountRequest(
        type="volume", source=_volume_name(source), target=_target(target, text), read_only=options["read_only"],
        options=options["words"],
    )  # fmt: skip


def _volume_options(text: str, whole: str) -> dict[str, Any]:
    found: dict[str, Any] = {"read_only": False, "propagation": "", "words": ()}
    for word in filter(None, text.split(",")):
        if word in ("ro", "rro", "readonly"):
            found["read_only"] = True
        elif word in PROPAGATIONS:
            found["propagation"] = word
        elif word == "nocopy":
            found["words"] = ("nocopy",)
        elif word not in _NO_EFFECT:
            raise ValueError(f"invalid volume specification: '{whole}': invalid mode: {word}")
    return found


def _volume_name(name: str) -> str:
    if len(name) < 2 or not _NAME_LETTERS.issuperset(name) or not name[0].isalnum():
        raise ValueError(
            f'"{name}" includes invalid characters for a local volume name, '
            'only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path'
        )
    return name


def _target(path: str, whole: str) -> str:
    if not path.startswith("/"):
        raise ValueError(
            f"invalid volume specification: '{whole}': invalid mount path: '{path}' mount path must be absolute"
        )
    if not path.strip("/"):
        raise ValueError(f"invalid volume specification: '{whole}': invalid specification: destination can't be '/'")
    return path


def parse_tmpfs(text: str) -> MountRequest:
    """``TARGET[:OPTIONS]``, options as in fstab. Raises: ValueError."""
    target, _, words = text.partition(":")
    options = tuple(filter(None, words.split(",")))
    return MountRequest(
        type="tmpfs", target=_target(target, text), read_only="ro" in options,
        options=tuple(word for word in options if word not in ("ro", "rw")),
    )  # fmt: skip


def parse_mount(text: str) -> MountRequest:
    """``type=bind,source=…,target=…,readonly``: one CSV record of keys. Raises: ValueError with docker's reason."""
    values: dict[str, Any] = {"type": "volume", "options": ()}
    if not text:
        raise ValueError("value is empty")
    for field in split_csv(text):
        _mount_field(values, field)
    kind = values["type"]
    if "target" not in values:
        raise ValueError("target is required")
    if kind == "bind" and not values.get("source"):
        raise ValueError("source is required when specifying a bind mount")
    if kind == "tmpfs" and values.get("source"):
        raise ValueError('invalid mount config for type "tmpfs": field Source must not be specified')
    for key in ("propagation", "create_source", "recursive"):
        if key in values and kind != "bind":
            raise ValueError(f"cannot mix 'bind-*' options with mount type '{kind}'")
    if "recursive" in values:
        values.update(_recursion(values))
    if kind == "bind" and values["source"].startswith("."):
        values["source"] = os.path.abspath(values["source"])
    if kind == "bind" and not values["source"].startswith("/"):
        raise ValueError(
            'invalid mount config for type "bind": '
            f"invalid mount path: '{values['source']}' mount path must be absolute"
        )
    if kind == "volume" and values.get("source"):
        _volume_name(values["source"])
    return MountRequest(**values)


def _recursion(values: dict[str, Any]) -> dict[str, Any]:
    """What ``bind-recursive`` says; ``enabled`` never falls back to writable mounts, so ``readonly`` adds nothing."""
    wanted, missing = values["recursive"], ""
    if wanted in ("writable", "readonly") and not values.get("read_only"):
        missing = "readonly"
    elif wanted == "readonly" and values.get("propagation") != "rprivate":
        missing = "bind-propagation=rprivate"
    if missing:
        raise ValueError(f"option 'bind-recursive={wanted}' requires '{missing}' to be specified in conjunction")
    return {"recursive": wanted != "disabled", "writable_below": wanted == "writable"}


def _mount_field(values: dict[str, Any], field: str) -> None:
    key, equals, value = field.partition("=")
    if key != key.strip() or value != value.strip():
        raise ValueError(f"invalid option '{key}' in '{field}': option should not have whitespace")
    key = key.lower()
    if not equals and key not in ("readonly", "ro", "bind-create-src", "bind-nonrecursive", "volume-nocopy"):
        raise ValueError(f"invalid field '{field}' must be a key=value pair")
    if key == "type":
        values["type"] = value.lower()
        if values["type"] not in ("bind", "volume", "tmpfs"):
            raise ValueError(f"mount type '{value}' is not supported; there are bind, volume and tmpfs")
    elif key in ("source", "src"):
        values["source"] = value
    elif key in ("target", "dst", "destination"):
        values["target"] = _target(value, field)
    elif key in ("readonly", "ro"):
        values["read_only"] = _truth(key, value if equals else "true")
    elif key == "bind-propagation":
        if value not in PROPAGATIONS:
            raise ValueError(f"invalid propagation value: {value}")
        values["propagation"] = value
    elif key == "bind-create-src":
        values["create_source"] = _truth(key, value if equals else "true")
    elif key == "bind-recursive":
        if value not in _RECURSIONS:
            raise ValueError(f"invalid value for bind-recursive: {value} (there are {', '.join(_RECURSIONS)})")
        values["recursive"] = value
    elif key == "bind-nonrecursive":
        values["recursive"] = "disabled" if _truth(key, value if equals else "true") else "enabled"
    elif key != "consistency":
        _option_field(values, key, value=value, given=bool(equals))


def _option_field(values: dict[str, Any], key: str, *, value: str, given: bool) -> None:
    if key == "tmpfs-size":
        from cloison.model.units import parse_size

        values["options"] += (f"size={parse_size(value)}",)
    elif key == "tmpfs-mode":
        if not value or not frozenset("01234567").issuperset(value):
            raise ValueError(f"invalid value for {key}: {value}")
        values["options"] += (f"mode={value}",)
    elif key == "volume-nocopy":
        if _truth(key, value if given else "true"):
            values["options"] += ("nocopy",)
    else:
        raise ValueError(f"unexpected key '{key}' in '{key}={value}'")


def _truth(key: str, value: str) -> bool:
    if value in ("1", "true", "True", "TRUE", "t", "T"):
        return True
    if value in ("0", "false", "False", "FALSE", "f", "F"):
        return False
    raise ValueError(f"invalid value for {key}: {value}")


def split_csv(text: str) -> list[str]:
    """One record of RFC 4180: fields at commas, quotes around a field that holds one. Raises: ValueError."""
    fields: list[str] = []
    rest = text
    while True:
        if rest.startswith('"'):
            field, rest = _quoted(rest[1:], text)
        else:
            end = rest.find(",")
            field, rest = (rest, "") if end < 0 else (rest[:end], rest[end:])
            if '"' in field:
                raise ValueError(f"bare quote in field '{field}'")
        fields.append(field)
        if not rest:
            return fields
        rest = rest[1:]


def _quoted(rest: str, whole: str) -> tuple[str, str]:
    field = ""
    while True:
        piece, quote, rest = rest.partition('"')
        if not quote:
            raise ValueError(f"a quote is not closed in '{whole}'")
        field += piece
        if not rest.startswith('"'):
            if rest and rest[0] != ",":
                raise ValueError(f"something follows a quoted field in '{whole}'")
            return field, rest
        field += '"'
        rest = rest[1:]
