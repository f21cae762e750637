"""A certificate authority for one test: certificates of servers and clients, made by openssl."""

from __future__ import annotations

import subprocess
from pathlib import Path


class Authority:
    """Signs certificates; its own is ``file``."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self.file, self._key = directory / "ca.crt", directory / "ca.key"
        _openssl("req", "-x509", *_KEY, "-subj", "/CN=test authority", "-keyout", self._key, "-out", self.file)

    def sign(self, name: str, *, names: str = "IP:127.0.0.1,DNS:localhost") -> tuple[Path, Path]:
        """A certificate for these names (openssl's subjectAltName), and its key."""
        certificate, key = self._directory / f"{name}.cert", self._directory / f"{name}.key"
        _openssl(
            "req", "-x509", *_KEY, "-subj", f"/CN={name}", "-addext", f"subjectAltName={names}", "-CA", self.file,
            "-CAkey", self._key, "-addext", "basicConstraints=critical,CA:FALSE", "-keyout", key, "-out", certificate,
        )  # fmt: skip
        return certificate, key


_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")


def _openssl(*words: str | Path) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True)
