"""One small study, run once as a user runs it, for all tests of what it leaves behind."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

# Helper modules are found by their full names.
sys.path.append(str(Path(__file__).parents[1]))

# What is faster here must not decide what a test computes; the tests of `auto` lift this.
os.environ["MEDAUG_PRECISION"] = "fp32"

# Started in the background, tests inherit an ignored SIGINT, and so would all that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

from tests.integration.small_study import SMALL, Finished, medaug


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("spine")
    spec = folder / "small.yaml"
    spec.write_text(SMALL)
    done = medaug("run", spec, "--storage", folder / "runs")
    assert done.returncode == 0, done.stderr
    return Finished(spec, folder / "runs", done.stdout + done.stderr)
