"""A gain that is there is seen, and none is seen where there is no signal: whole studies.

``pytest -m slow -s tests/integration/test_planted.py`` prints the numbers of docs/calibration.md.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medaug.metrics.power import smallest_visible_gain
from medaug.plan.power import MOST_EQUAL, power_of
from medaug.results.rows import MORE_REAL
from medaug.spec import StudySpec
from tests.integration.planted import (
    Truth,
    board_of,
    plan_here,
    planted,
    row_of_arm,
    run_planted,
    shown,
    write_rows,
)
from tests.metrics.test_calibration import consistent, counted
from tests.store.cohorts import write_cohort

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

REPETITIONS = 10
ORACLE = Truth((120, 120), dimensions=20, slices=4)


def oracle_study(storage: Path, number: int) -> tuple[StudySpec, np.ndarray]:
    """8 patients to train on, and as an arm the images of 24 patients whom nobody scores."""
    rng = np.random.default_rng([11, number])
    fresh, classes = replace(ORACLE, slices=1).images(rng, (12, 12))
    path = write_rows(storage / "fresh.npz", fresh[:, 0], classes)
    oracle = {"kind": "folder", "path": str(path), "made_from": {"public": "simulator"}}
    study = planted(
        storage,
        ORACLE,
        arms={"none": {}, "oracle": oracle},
        sweep={"n_synthetic": [24], "train_rows": [32], "draws": 3, "seeds": [0]},
    )
    x, label = ORACLE.images(rng)
    write_cohort(study, x, label)
    return study, label


def test_an_oracle_is_a_gain(tmp_path: Path) -> None:
    """At an effect of which the rehearsal's variance promises that 8 of 10 studies show it."""
    study, label = oracle_study(tmp_path / "rehearsal", 0)
    beforehand = power_of(study, [(int(k), ORACLE.slices) for k in label], plan_here(study))
    assert beforehand is not None
    board = run_planted(study)
    row = row_of_arm(board, "oracle")
    assert row.reference is not None
    components = board_of(study).contrast(row.title, row.reference).components
    assert components is not None
    controls = [each for each in board.rows if not each.synthetic and each.kind != MORE_REAL]
    promise = smallest_visible_gain(components, controls=min(len(controls), MOST_EQUAL))
    gains, ends = [], []
    for number in range(1, REPETITIONS + 1):
        study, _ = oracle_study(tmp_path / str(number), number)
        row = row_of_arm(run_planted(study), "oracle")
        gains.append(row.gain)
        ends.append(row.ending)
        print(f"\n{shown(row)}: {row.ending}", end="")
    seen = ends.count("gain")
    print(
        f"\noracle: plan promises +{beforehand.gain:.3f} before and +{promise:.3f} after a"
        f" rehearsal; the gain is +{np.mean(gains):.3f}; seen in {counted(seen, REPETITIONS)}"
    )
    assert np.mean(gains) >= promise
    assert seen >= 9


def test_permuted_labels_show_no_gain(tmp_path: Path) -> None:
    """20 whole studies in which no label has to do with its image."""
    truth = Truth((60, 60), slices=1)
    boards, false_gains, rows = 20, 0, 0
    for number in range(boards):
        rng = np.random.default_rng([12, number])
        study = planted(
            tmp_path / str(number),
            truth,
            arms={"none": {}, "smote": {}, "gaussian": {"components": 20}, "noise": {}},
            sweep={"n_synthetic": [14], "train_rows": [24], "draws": 3, "seeds": [0]},
        )
        x, label = truth.images(rng)
        write_cohort(study, x, rng.permutation(label))
        board = run_planted(study)
        ended = {row.arm: row.ending for row in board.rows if row.synthetic}
        assert set(ended) == {"smote", "gaussian", "noise"}
        assert all(ended.values()), "a row that cannot be ranked would prove nothing"
        false_gains += "gain" in ended.values()
        rows += sum(end == "gain" for end in ended.values())
    print(
        f"\npermuted labels: any false gain on {counted(false_gains, boards)} boards, {rows} rows"
    )
    assert consistent(false_gains, boards, 0.05)
