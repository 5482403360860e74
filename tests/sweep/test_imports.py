"""What starts often starts light: only ranks load torch, and not its compiler."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["sweep.trial.trainable", "ownership.status"])
def test_what_starts_often_does_without_torch(module: str) -> None:
    code = f"import sys, medaug.{module}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_rank_does_without_the_compiler() -> None:
    """``torch._dynamo`` takes as long to import as all else of torch."""
    code = """
import sys
from medaug.experiment import run_trial
from medaug.sweep.trial.rank import Rank
from medaug.train.device import compute
compute(deterministic=False)
sys.exit("torch" not in sys.modules or "torch._dynamo" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
