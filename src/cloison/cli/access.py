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


def platform_flags(what: str) -> tuple[Flag, ...]:
    """docker's ``--platform``, and podman's three words for it; `platform_of` reads them."""
    return (
        Flag("--arch", "string", help="Architecture, in place of this machine's", hidden=True),
        Flag("--os", "string", help="Operating system, in place of this machine's", hidden=True),
        Flag("--platform", "string", help=what),
        Flag("--variant", "string", help="Variant of the architecture", hidden=True),
    )


def platform_of(call: Call, prefix: str = "") -> str:
    """``os/architecture/variant`` of ``--platform`` or of ``--os --arch --variant``; copy's begin with ``override-``.

    Raises: UsageError for both.
    """
    words = [call.text(f"{prefix}{name}") for name in ("os", "arch", "variant")]
    if not any(words):
        return call.text("platform")
    if call.given("platform"):
        raise UsageError(f"--platform and --{prefix}os, --{prefix}arch, --{prefix}variant say the same")
    from cloison.registry.platforms import parse_platform

    here = parse_platform("")
    return "/".join(filter(None, (words[0] or here.os, words[1] or here.architecture, words[2])))


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
