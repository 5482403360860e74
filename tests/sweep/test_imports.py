"""What starts often starts light: only ranks load torch."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["sweep.trial.trainable", "ownership.status"])
def test_what_starts_often_does_without_torch(module: str) -> None:
    code = f"import sys, medaug.{module}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
