"""Stage generate by itself: what it tells, and goes on from."""

from __future__ import annotations

from pathlib import Path

import pytest

from medaug.experiment import run_trial
from medaug.experiment.quality import collapse
from tests.experiment.test_together import ACGAN, ALONE, storage, trial

__all__ = ["storage"]


def test_a_trial_resumed_after_any_epoch_ends_as_the_undisturbed_one(storage: Path) -> None:
    config = trial(ACGAN)
    *epochs, last = run_trial(config, ALONE, storage, None)
    assert [progress.epoch for progress in epochs] == [1, 2]
    assert [progress.save for progress in epochs] == [False, True], "rows come next, no epoch"
    assert last.result is not None
    assert [*last.result.history] == [progress.metrics for progress in epochs]
    for stopped in epochs:
        *_, again = run_trial(config, ALONE, storage, stopped.checkpoint)
        assert again == last


@pytest.mark.parametrize(
    ("scores", "reason"),
    [
        ({"recall": 0.1, "diversity": 0.7}, None),
        ({"recall": 0.0, "diversity": 0.7, "recall_null": 0.8}, "recall 0 "),
        ({"recall": 0.0, "diversity": 0.7, "recall_null": 0.0}, None),  # real ones have none either
        ({"recall": 0.1, "diversity": 0.2}, "diversity 0.20"),
        ({}, None),
    ],
)
def test_rows_of_little_variety_have_collapsed(scores: dict[str, float], reason: str) -> None:
    found = collapse(scores)
    assert found is None if reason is None else found is not None and reason in found
