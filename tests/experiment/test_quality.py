"""What a network's rows are compared with: those of a Gaussian, fitted to the same rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from medaug.experiment import run_trial
from medaug.experiment.quality import gaussian_tstr
from medaug.experiment.rows import arm_context
from medaug.storage.artifacts import Artifacts
from tests.experiment.test_together import ACGAN, ALONE, storage, trial

__all__ = ["storage"]


def test_the_gaussians_own_rows_score_what_a_network_is_compared_with(storage: Path) -> None:
    *_, network = run_trial(trial(ACGAN), ALONE, storage)
    *_, gaussian = run_trial(trial({"kind": "gaussian"}), ALONE, storage)
    assert network.result is not None
    assert gaussian.result is not None
    # It is the arm itself, on as many rows, with the same seed.
    assert network.result.scores["tstr_gaussian"] == pytest.approx(gaussian.result.scores["tstr"])
    assert "tstr_gaussian" not in gaussian.result.scores
    *_, smote = run_trial(trial({"kind": "smote"}), ALONE, storage)
    assert "tstr_gaussian" not in smote.result.scores  # type: ignore[union-attr]


def test_a_class_of_one_row_has_no_gaussian(storage: Path) -> None:
    config = trial(ACGAN)
    artifacts = Artifacts(storage)
    context = arm_context(config, artifacts.open_store("features"), ALONE, artifacts)
    alone = context.train.select([0, 1, 2, 6])
    assert alone.labels.tolist() == [0, 0, 0, 1]
    value = gaussian_tstr(replace(context, train=alone), 20)
    assert value != value
