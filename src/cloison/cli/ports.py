"""``-p [ADDRESS:][HOST[-HOST]:]CONTAINER[-CONTAINER][/PROTOCOL]`` (go-connections/nat, ParsePortSpec). Pure."""

from __future__ import annotations

from cloison.model.container import PortMapping

PROTOCOLS = ("tcp", "udp", "sctp")


def parse_publish(text: str) -> tuple[PortMapping, ...]:
    """One ``-p`` as one mapping a port. Raises: ValueError with the reason."""
    if "=" in text:
        text = _standard_notation(text)
    body, _, protocol = text.partition("/")
    protocol = protocol.lower() or "tcp"
    if protocol not in PROTOCOLS:
        raise ValueError(f"invalid proto: {protocol}")
    address, host, container = _split(body)
    if not container:
        raise ValueError(f"no port specified: {text}<empty>")
    first, last = _range(container, "containerPort")
    if not first:
        raise ValueError(f"invalid containerPort: {container}")
    host_first, host_last = _range(host, "hostPort") if host else (0, 0)
    if host_first and host_last - host_first != last - first:
        if first == last:
            raise ValueError(f"a range of host ports for one container port is not supported yet: {text}")
        raise ValueError(f"invalid ranges specified for container and host Ports: {container} and {host}")
    return tuple(
        PortMapping(
            container_port=port, protocol=protocol, host_address=address,
            host_port=host_first + port - first if host_first else 0,
        )
        for port in range(first, last + 1)
    )  # fmt: skip


def _split(body: str) -> tuple[str, str, str]:
    """ADDRESS, HOST and CONTAINER; an IPv6 address stands in brackets."""
    head, colon, container = body.rpartition(":")
    if not colon:
        return "", "", container
    if head.endswith("]") and head.startswith("["):
        return _address(head), "", container
    address, colon, host = head.rpartition(":")
    return (_address(address) if colon and address else ""), host, container


def _address(text: str) -> str:
    bare = text[1:-1] if text[:1] == "[" and text[-1:] == "]" else text
    import _socket

    for family in (_socket.AF_INET, _socket.AF_INET6):
        try:
            _socket.inet_pton(family, bare)
        except (OSError, ValueError):
            continue
        return bare
    raise ValueError(f"invalid IP address: {bare}")


def _range(text: str, what: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    start = _port(first, text, what)
    end = _port(last, text, what) if dash else start
    if end < start:
        raise ValueError(f"invalid {what}: {text}")
    return start, end


def _port(text: str, whole: str, what: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) > 65535:
        raise ValueError(f"invalid {what}: {whole}")
    return int(text)


def _standard_notation(text: str) -> str:
    """``published=8080,target=80,protocol=udp`` as ``8080:80/udp``."""
    values: dict[str, str] = {}
    for field in text.split(","):
        key, equals, value = field.partition("=")
        if not equals or not value:
            raise ValueError(f"invalid field {field}")
        if key not in ("published", "target", "protocol", "mode"):
            raise ValueError(f"invalid field key {key}")
        values[key] = value
    if "target" not in values:
        raise ValueError("missing mandatory field 'target'")
    published = values["published"] + ":" if "published" in values else ""
    return f"{published}{values['target']}/{values.get('protocol', 'tcp')}"
