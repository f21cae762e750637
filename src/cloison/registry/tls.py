"""Whom we trust over TLS: the system's authorities, those of ``certs.d``, and the certificates that we show ourselves.

Sources: containers-certs.d(5), Docker's "Verify repository client with certificates", containerd's hosts.md.
"""

from __future__ import annotations

import os
from functools import partial

from cloison.errors import InvalidArgument
from cloison.model.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence

    from cloison.registry.origin import Origin


class TlsFiles(Record):
    """PEM files for one registry."""

    authorities: tuple[str, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()  # (certificate, key); the key may be in the certificate's file


class Trust:
    """TLS contexts for one registry's host and for where it leads.

    Authorities count for both, since a registry's token service is often signed by the same. A client certificate, and
    ``verify=False``, count for the registry's own host alone.
    """

    def __init__(
        self, home: str, *, files: TlsFiles | None = None, verify: bool = True, context: ssl.SSLContext | None = None
    ) -> None:
        self._home = home
        self._files = files or TlsFiles()
        self._verify = verify
        self._given = context

    def is_home(self, origin: Origin) -> bool:
        return origin.host == self._home

    def context(self, origin: Origin) -> ssl.SSLContext:
        """Raises: InvalidArgument for a file that holds no certificate."""
        if self._given is not None:
            return self._given
        import ssl

        context = ssl.create_default_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        for path in self._files.authorities:
            _load(path, partial(context.load_verify_locations, path))
        if self.is_home(origin):
            for certificate, key in self._files.pairs:
                _load(certificate, partial(context.load_cert_chain, certificate, key))
            if not self._verify:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
        return context


def _load(path: str, load: Callable[[], object]) -> None:
    import ssl

    try:
        load()
    except (ssl.SSLError, OSError) as err:
        why = (os.strerror(err.errno) if err.errno and not isinstance(err, ssl.SSLError) else "not a PEM file").lower()
        raise InvalidArgument(f"cannot use {path} for TLS", why=why) from err


def find_tls_files(directories: Sequence[str]) -> TlsFiles:
    """``*.crt`` are authorities, ``X.cert`` with ``X.key`` is what we show, from the first directory that is there.

    Raises: InvalidArgument for a certificate without its key.
    """
    for directory in directories:
        try:
            names = sorted(os.listdir(directory))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as err:
            why = os.strerror(err.errno or 0).lower()
            raise InvalidArgument(f"cannot read {directory}", why=why) from err
        pairs = []
        for name in names:
            if name.endswith(".cert"):
                key = name.removesuffix("cert") + "key"
                if key not in names:
                    raise InvalidArgument(f"cannot use {directory}/{name} for TLS", why=f"its key {key} is missing")
                pairs.append((f"{directory}/{name}", f"{directory}/{key}"))
        authorities = tuple(f"{directory}/{name}" for name in names if name.endswith(".crt"))
        return TlsFiles(authorities=authorities, pairs=tuple(pairs))
    return TlsFiles()
