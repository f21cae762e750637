"""The flags by which a command reaches registries, as podman and skopeo spell them."""

from __future__ import annotations

from cloison.cli.parser import Flag, UsageError
from cloison.model.settings import Access

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.cli.call import Call


def access_flags(prefix: str = "", *, creds: bool = True) -> tuple[Flag, ...]:
    """``--authfile --cert-dir --creds --tls-verify``; copy has them for each side, with ``src-`` and ``dest-``."""
    side = {"src-": " of the source", "dest-": " of the destination"}.get(prefix, "")
    flags = [
        Flag(f"--{prefix}authfile", "string", help=f"File of credentials{side}, and no other"),
        Flag(f"--{prefix}cert-dir", "string", help=f"Directory of certificates for the registry{side}"),
        Flag(f"--{prefix}tls-verify", help=f"Verify the certificate of the registry{side} (default: but on loopback)"),
    ]
    if creds:
        flags.append(Flag(f"--{prefix}creds", "string", help=f"USER:PASSWORD for the registry{side}"))
    return tuple(flags)


def access_of(call: Call, prefix: str = "") -> Access:
    """What these flags say. Raises: UsageError."""
    user, colon, password = call.text(f"{prefix}creds").partition(":")
    if user and not colon:
        raise UsageError(f"invalid argument for --{prefix}creds: no colon between user and password")
    auth_file = call.text(f"{prefix}authfile") or (call.text("authfile") if prefix else "")
    verify = call.switch(f"{prefix}tls-verify") if call.given(f"{prefix}tls-verify") else None
    return Access(
        username=user, password=password, auth_file=auth_file, cert_dir=call.text(f"{prefix}cert-dir"),
        tls_verify=verify,
    )  # fmt: skip
