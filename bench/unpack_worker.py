"""Unpacks the layer ARGV[1] into the empty directory ARGV[2]: what a pull does with each layer, and nothing else."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from cloison.archive.unpack import apply_layer

with Path(sys.argv[1]).open("rb", buffering=0) as layer:
    root_fd = os.open(sys.argv[2], os.O_RDONLY | os.O_DIRECTORY)
    apply_layer(layer, root_fd=root_fd)
