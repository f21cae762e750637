"""An image to move about: four gzip layers of this machine's own programs, texts and noise, as an OCI layout."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

LAYERS = 4
_NOISE = 16  # every so many bytes' worth of files, one of noise: what is compressed already
_LARGEST_FILE = 64 << 20
_OCI = "application/vnd.oci.image"

Descriptor = dict[str, Any]


class Sample:
    """The image: where it lies, its descriptors and what it takes unpacked."""

    def __init__(self, path: Path, *, plain_bytes: int) -> None:
        self.path = path
        self.layers: list[Descriptor] = []
        self.diff_ids: list[str] = []
        self.files = 0
        (path / "blobs/sha256").mkdir(parents=True)
        files = _files()
        for number in range(LAYERS):
            self._add_layer(files, number, plain_bytes // LAYERS)
        config = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/true"]},
                  "rootfs": {"type": "layers", "diff_ids": self.diff_ids}}  # fmt: skip
        self.config = self._add_document(config, f"{_OCI}.config.v1+json")
        manifest = {"schemaVersion": 2, "mediaType": f"{_OCI}.manifest.v1+json", "config": self.config,
                    "layers": self.layers}  # fmt: skip
        self.manifest = self._add_document(manifest, str(manifest["mediaType"]))
        tagged = {**self.manifest, "annotations": {"org.opencontainers.image.ref.name": "bench"}}
        (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [tagged]}))
        (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    @property
    def packed_bytes(self) -> int:
        return sum(int(layer["size"]) for layer in self.layers)

    def blob(self, digest: str) -> Path:
        return self.path / "blobs/sha256" / digest.removeprefix("sha256:")

    def _add_layer(self, files: Iterator[str], number: int, size: int) -> None:
        temporary = self.path / "layer"
        with open(temporary, "wb") as out:
            packer = _Packer(out)
            with tarfile.open(fileobj=packer, mode="w|", format=tarfile.GNU_FORMAT) as tar:  # type: ignore[call-overload]
                self._fill(tar, files, packer, random.Random(number), size=size)
            packer.finish()
        digest = "sha256:" + packer.packed.hexdigest()
        temporary.rename(self.blob(digest))
        self.layers.append(
            {"mediaType": f"{_OCI}.layer.v1.tar+gzip", "digest": digest, "size": self.blob(digest).stat().st_size}
        )
        self.diff_ids.append("sha256:" + packer.plain.hexdigest())

    def _fill(
        self, tar: tarfile.TarFile, files: Iterator[str], packer: _Packer, rng: random.Random, *, size: int
    ) -> None:
        noise = 0
        while packer.taken < size and (path := next(files, "")):
            info = tar.gettarinfo(path, arcname=path.lstrip("/"))
            info.uid = info.gid = 0
            with open(path, "rb") as file:
                tar.addfile(info, file)
            self.files += 1
            if packer.taken // _NOISE > noise:
                info = tarfile.TarInfo(f"noise/{self.files}")
                info.size = min(packer.taken // _NOISE - noise, 1 << 20)
                tar.addfile(info, io.BytesIO(rng.randbytes(info.size)))
                noise += info.size
                self.files += 1

    def _add_document(self, value: object, media_type: str) -> Descriptor:
        data = json.dumps(value).encode()
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        self.blob(digest).write_bytes(data)
        return {"mediaType": media_type, "digest": digest, "size": len(data)}


class _Packer:
    """gzip, as `docker build` and `gzip -6` make it, and both digests."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._deflate = zlib.compressobj(6, zlib.DEFLATED, 31)
        self.plain, self.packed = hashlib.sha256(), hashlib.sha256()
        self.taken = 0

    def write(self, data: bytes) -> int:
        self.taken += len(data)
        self.plain.update(data)
        self._put(self._deflate.compress(data))
        return len(data)

    def finish(self) -> None:
        self._put(self._deflate.flush())

    def _put(self, data: bytes) -> None:
        self.packed.update(data)
        self._out.write(data)


def _files() -> Iterator[str]:
    """Regular files below /usr, the same order each time, spread over its directories."""
    found = []
    for top, directories, names in os.walk("/usr"):
        directories[:] = [name for name in directories if not os.path.ismount(os.path.join(top, name))]
        for name in names:
            path = os.path.join(top, name)
            if os.path.isfile(path) and not os.path.islink(path) and 0 < os.path.getsize(path) < _LARGEST_FILE:
                found.append(path)
    found.sort()
    random.Random(11).shuffle(found)
    return iter(found)
