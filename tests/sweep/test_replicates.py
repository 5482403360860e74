"""Replicates folded into one trial: who runs what, and what is left on disk."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from medaug.experiment import run_trial
from medaug.spec import StudySpec
from medaug.storage.results import ExtractResult, GenerateResult
from medaug.storage.trial_folder import TrialFolder
from medaug.sweep.trial.replicates import AT_ONCE, folded, run_replicates
from medaug.train.checkpoint import Ledger
from medaug.train.world import World

# Test folders are no package: the small store is the experiment's tests' own.
sys.path.append(str(Path(__file__).parents[2]))
from tests.experiment.test_together import ACGAN, ALONE, storage, trial

__all__ = ["storage"]


def test_groups_are_configurations_and_leave_finished_trials_out(tmp_path: Path) -> None:
    wide = ACGAN | {"ngf": 7}
    first = [trial(ACGAN, fold, seed) for fold in range(2) for seed in range(10)]
    second = [trial(wide, 0, seed) for seed in range(2)]
    alone = [trial({"kind": "gaussian"}, 0, seed) for seed in range(2)]
    single = [trial(ACGAN | {"ngf": 9})]
    done = TrialFolder(tmp_path / "study", first[0].key)
    done.claim(first[0])
    done.finish(ExtractResult(output="none", rows=0, shape=()))

    firsts = folded([*first, *second, *alone, *single], tmp_path / "study")

    # Nineteen of the first configuration are left: sixteen and three.
    assert [len(each.together_with) for each in firsts] == [AT_ONCE, 3, 2]
    assert [each.key for each in firsts] == [first[1].key, first[17].key, second[0].key]
    assert all(each.together_with[0] == "study" for each in firsts)
    other = TrialFolder(tmp_path / "study", second[1].key)
    assert other.config() == second[1]
    assert "study" not in firsts[0].title


def _epochs(folder: TrialFolder) -> list[int]:
    return [row["epoch"] for row in folder.epochs()]


def test_each_replicate_has_its_ledger_and_result_and_goes_on_from_there(
    storage: Path,
) -> None:
    trials = [trial(ACGAN, fold, seed) for fold in range(2) for seed in range(2)]
    (first,) = folded(trials, storage / "study")
    folders = [TrialFolder(storage / "study", each.key) for each in trials[1:]]

    stopped = run_replicates(first, ALONE, storage, None)
    begun = next(stopped)
    stopped.close()  # type: ignore[attr-defined]
    assert [_epochs(folder) for folder in folders] == [[1]] * 3
    assert not any(folder.result() for folder in folders)

    *_, last = run_replicates(first, ALONE, storage, begun.checkpoint)
    assert last.result is not None
    assert last.result.status == "done"
    for folder, config in zip(folders, trials[1:], strict=True):
        assert _epochs(folder) == [1, 2, 3]
        result = folder.result()
        assert isinstance(result, GenerateResult)
        assert result.n == 20
        assert Ledger(folder.path).latest(config.key) is None  # what it made is on the artifacts


def test_what_is_left_of_a_replicate_runs_by_itself(storage: Path) -> None:
    pair = [trial(ACGAN, 0, seed) for seed in range(2)]
    (first,) = folded(pair, storage / "study")
    next(run_replicates(first, ALONE, storage, None))
    begun = Ledger(TrialFolder(storage / "study", pair[1].key).path).latest(pair[1].key)
    assert begun is not None

    rest = list(run_trial(pair[1], World.single(), storage, begun))

    assert [progress.epoch for progress in rest] == [2, 3]


def test_the_others_are_saved_where_the_first_is_so_that_they_go_on_together(storage: Path) -> None:
    pair = [trial(ACGAN | {"epochs": 4}, 0, seed) for seed in range(2)]
    (first,) = folded(pair, storage / "study")
    one, other = (Ledger(TrialFolder(storage / "study", each.key).path) for each in pair)

    epochs = run_replicates(first, ALONE, storage, None)
    begun = next(epochs)
    assert other.epoch() == 0, "saved before the first"
    assert begun.checkpoint is not None
    one.commit(begun.checkpoint, fingerprint=first.key)
    next(epochs)
    assert (one.epoch(), other.epoch()) == (1, 1)
    epochs.close()  # type: ignore[attr-defined]
    assert other.epoch() == 2, "a stop saves what is unsaved"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"resources": {"replicates": "fused", "ranks": 2}}, "fused replicates share one rank"),
        ({"resources": {"replicates": "fused"}, "sweep": {"asha": {}}}, "take one of the two"),
    ],
)
def test_what_does_not_go_with_fused_is_refused(keys: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StudySpec.model_validate({"name": "x", "arms": {"none": {"kind": "none"}}, **keys})
