"""A small study, and the command line as a user runs it.

Studies that are run as commands have one trial at a time: more ranks at once would each import
torch in a process of their own for trials of a second.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SMALL = """\
name: small
data: {image_size: 64, phantom: {patients: 16, d_prime: 2.6, slices: [5, 7]}}
split: {folds: 2}
segmenter:
  base: 4
  init: kaiming
  epochs: 2
  lr: 3.0e-4
  batch_size: 4
  pretrain: {phantom: {patients: 12, slices: [4, 6], seed: 1}, epochs: 2, lr: 3.0e-4}
features: {tap: conv5}
arms: {none: {}, duplicate: {}, classical: {}, acgan: {epochs: 4, ngf: 8, ndf: 8, filter: none}}
classifier: {epochs: 3}
controls: none
sweep: {n_synthetic: [24], seeds: [0, 1, 2]}
resources: {max_concurrent: 1}
"""


@dataclass(frozen=True)
class Finished:
    """A study that a ``medaug run`` process has finished."""

    spec: Path
    storage: Path
    output: str

    @property
    def folder(self) -> Path:
        return self.storage / "small"


def medaug(*args: str | Path, timeout_s: float = 240) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "medaug", *map(str, args)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env={**os.environ, "COLUMNS": "100", "MLFLOW_TRACKING_URI": ""},
    )
