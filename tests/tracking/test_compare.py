"""``medaug compare``: two runs side by side, and what may be said of their difference."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from medaug.cli import main
from medaug.errors import UserError
from medaug.metrics.board import Board
from medaug.metrics.predictions import Predictions
from medaug.results.compare import Comparison, Paired, _unpaired, compare, render
from medaug.results.configuration import Configuration
from medaug.results.leaderboard import leaderboard_and_trials
from medaug.results.rows import Leaderboard
from tests.audit.small_runs import SLICES, run_trials, study, write_slices

ARMS: dict[str, Any] = {
    "none": {},
    "duplicate": {},
    "smote": {"components": 4},
}
SWEEP: dict[str, Any] = {"n_synthetic": [24], "seeds": [0, 1, 2]}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage with a run and others like it but for a key."""
    storage = tmp_path_factory.mktemp("compared")

    def ran(name: str, slices: str = SLICES, **changes: Any) -> None:
        body = {"arms": ARMS, "sweep": SWEEP, "classifier": {"kind": "probe"}}
        run_trials(study(storage, name=name, **(body | changes)), slices)

    write_slices(study(storage))
    ran("first")
    ran("again")
    ran("other", arms=ARMS | {"smote": {"components": 2}, "mixup": {}})
    data = {"image_size": 32, "root": "elsewhere"}
    ran("moved", data=data, resources={"hang_timeout_s": 60})
    elsewhere = study(storage, split={"folds": 2, "test_fraction": 0.25, "seed": 1})
    stores = storage / "stores"
    (stores / SLICES).rename(stores / "kept")
    write_slices(elsewhere)
    (stores / SLICES).rename(stores / "slices-ba9876543210")
    (stores / "kept").rename(stores / SLICES)
    split = {"folds": 2, "test_fraction": 0.25, "seed": 1}
    ran("split", "slices-ba9876543210", split=split)
    return storage


def compared(storage: Path, first: str, second: str) -> tuple[Comparison, dict[str, Paired]]:
    found = compare(storage / first, storage / second)
    return found, {row.title: row for row in found.rows}


def test_a_run_and_its_repetition_do_not_differ(runs: Path) -> None:
    found, rows = compared(runs, "first", "again")
    assert found.differences == ()
    assert found.patients[0] == found.patients[1] == found.patients[2] > 0
    assert rows.keys() == {row.title for row in found.first.rows}
    for row in rows.values():
        assert row.difference is not None
        estimate, low, high = row.difference
        assert estimate == 0
        assert low < 0 < high, "no patient tells them apart: still not nothing (three of n)"
    assert "Data, protocol, split and settings are the same." in render(found, 100)


def test_the_difference_is_paired(runs: Path) -> None:
    found, rows = compared(runs, "first", "other")
    assert found.differences[0].text == "arms.smote.components: 4 | 2"
    assert [d.key for d in found.differences[1:]] == ["arms.mixup"]
    assert found.differences[1].text.startswith("arms.mixup: – | {'kind': 'mixup'")
    row = rows["smote +24"]
    assert row.difference is not None
    assert row.first is not None
    assert row.second is not None
    assert row.difference[0] == pytest.approx(row.second.mean - row.first.mean)
    boards = [leaderboard_and_trials(runs / name)[1] for name in ("first", "other")]
    # All that both have, side by side, as on one leaderboard.
    both = [title for title, row in rows.items() if not row.why]
    hits = {f"{at} {title}": boards[at][title].hits for title in both for at in (0, 1)}
    contrast = Board(hits).contrast("1 smote +24", "0 smote +24")  # type: ignore[arg-type]
    assert row.difference[1:] == pytest.approx(contrast.bounds())
    apart = np.hypot(*((each.high - each.low) / 2 for each in (row.first, row.second)))
    assert (row.difference[2] - row.difference[1]) / 2 < apart, "patients are the same"
    assert rows["mixup +24"].why == "only in B"
    assert rows["mixup +24"].difference is None
    text = render(found, 100)
    assert text.index("arms.smote.components: 4 | 2") < text.index("smote +24")
    assert "no paired interval: only in B" in text


def test_where_a_run_lies_is_no_difference(runs: Path) -> None:
    assert compared(runs, "first", "moved")[0].differences == ()


def by_chance(*seeds: int, patients: int = 12) -> Configuration:
    """A configuration whose answers another seed changes."""
    names = [f"p{i:02}" for i in range(patients)]
    tables = [
        Predictions.of_trial(
            names,
            np.arange(patients) % 2,
            np.random.default_rng(seed).uniform(size=patients),
            seed=seed,
            fold=0,
        )
        for seed in seeds
    ]
    return Configuration((), (), Predictions.concat(tables))


def test_what_cannot_be_paired_is_said() -> None:
    boards = (Leaderboard("a", "honest", ("LGG", "HGG"), (), 0),) * 2
    one = by_chance(0, 1, 2)
    assert _unpaired(one, by_chance(0, 1, 2), boards) == ""
    assert _unpaired(one, by_chance(7), boards) == "", "of one seed: with each of the others"
    assert _unpaired(one, by_chance(3, 4, 5), boards) == "other seeds: [0, 1, 2] and [3, 4, 5]"
    assert _unpaired(one, by_chance(0, 1, 2, patients=10), boards) == "scored on other patients"
    assert _unpaired(None, one, boards) == "only in B"
    assert _unpaired(one, Configuration((), (), None), boards) == "not scored in B"
    other = replace(boards[0], classes=("normal", "pneumonia"))
    assert _unpaired(one, one, (boards[0], other)) == "other classes"


def test_other_patients_are_said_first_of_all(runs: Path) -> None:
    found, rows = compared(runs, "first", "split")
    assert found.differences[0].text == "split.seed: 0 | 1"
    first, second, both = found.patients
    assert both < min(first, second)
    assert {row.why for row in rows.values()} == {"scored on other patients"}
    text = render(found, 100)
    assert text.index("Data, protocol or split differ") < text.index("configuration")
    assert f"Patients scored: {first} by A, {second} by B, {both} by both." in text


def command(runs: Path, *words: str) -> Any:
    return CliRunner().invoke(main, ["compare", *words, "--storage", str(runs)])


def test_for_a_program(runs: Path) -> None:
    done = command(runs, "first", "other", "--json")
    assert done.exit_code == 0, done.output
    body = json.loads(done.stdout)
    assert (body["first"]["run"], body["second"]["run"]) == ("first", "other")
    rows = {row["title"]: row for row in body["rows"]}
    assert set(rows["smote +24"]["difference"]) == {"mean", "low", "high"}
    assert rows["smote +24"]["second"]["mean"] is not None
    assert rows["mixup +24"]["first"] is None
    assert rows["mixup +24"]["difference"] is None
    assert body["differences"][0] == {"key": "arms.smote.components", "first": 4, "second": 2}


def test_two_runs_are_wanted(runs: Path) -> None:
    with pytest.raises(UserError, match="compare: first twice; name two runs"):
        compare(runs / "first", runs / "first")
    done = command(runs, "first", "none-such")
    assert done.exit_code == 2
    assert "none-such: no such run; have" in done.stderr
