"""Unpacks the image of OCI layout ARGV[1] into a new data root ARGV[2]: what a pull does once its blobs are here."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from cloison.engine.bringing import Bringing
from cloison.images.layout import StoredImage
from cloison.model.settings import Settings
from cloison.oci.image import Manifest, parse_manifest

layout, root = Path(sys.argv[1]), sys.argv[2]
with Bringing(Settings(data_root=root, run_root=f"{root}/run")) as bringing:
    for blob in (layout / "blobs/sha256").iterdir():
        target = bringing.blobs.path(f"sha256:{blob.name}")
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.link(blob, target)
    (entry,) = json.loads((layout / "index.json").read_text())["manifests"]
    manifest = parse_manifest(bringing.blobs.read(entry["digest"]))
    assert isinstance(manifest, Manifest)
    bringing.publish(
        StoredImage(
            manifest_digest=entry["digest"],
            config_digest=manifest.config.digest,
            layers=manifest.layers,
            config=bringing.blobs.read(manifest.config.digest),
        )  # fmt: skip
    )
