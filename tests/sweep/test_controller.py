"""Trials are made when there is room for them, and forgotten when they are over."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray import tune
from ray.train._internal.storage import StorageContext

from medaug.sweep.tune.controller import Controller, Feed, OfKind

TRIALS, AT_ONCE = 7, 2


class Short(tune.Trainable):
    """Ends at its second step; one of them breaks there, and is tried twice more."""

    def step(self) -> dict[str, Any]:
        if self.iteration == 1 and self.config["number"] == 3:
            raise RuntimeError("broken")
        return {"number": self.config["number"], tune.result.DONE: self.iteration == 1}

    def reset_config(self, config: dict[str, Any]) -> bool:
        return True


class Witness(tune.Callback):
    """What the controller still knows at the end of each step, and how trials ended."""

    def __init__(self) -> None:
        self.known: list[int] = []
        self.ended: dict[str, str] = {}

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self.known.append(len(trials))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.ended[trial.trial_id] = "complete"

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.ended[trial.trial_id] = Path(trial.error_file).read_text()


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_the_controller_knows_no_more_trials_than_are_under_way(tmp_path: Path) -> None:
    storage, witness = StorageContext(tmp_path, "wave"), Witness()
    made: list[weakref.ref[OfKind]] = []

    def trials() -> Iterator[OfKind]:
        for number in range(TRIALS):
            trial = OfKind(
                Short,
                trial_id=f"trial-{number}",
                config={"number": number},
                storage=storage,
                placement_group_factory=tune.PlacementGroupFactory([{"CPU": 1}]),
                max_failures=2,
            )
            made.append(weakref.ref(trial))
            yield trial

    controller = Controller(
        search_alg=Feed(trials(), AT_ONCE), callbacks=[witness], storage=storage, reuse_actors=True
    )
    controller.run()

    assert set(witness.ended) == {f"trial-{number}" for number in range(TRIALS)}
    broken = witness.ended.pop("trial-3")
    assert broken.count("RuntimeError: broken") >= 3
    assert set(witness.ended.values()) == {"complete"}
    assert max(witness.known) == AT_ONCE
    assert witness.known[-1] == 0
    gc.collect()
    assert len(made) == TRIALS
    assert sum(trial() is not None for trial in made) <= 1, "the generator's last one at most"
    assert not list(tmp_path.rglob("*.pkl"))
    assert not list(tmp_path.rglob("experiment_state*"))


def test_trials_are_handed_out_as_others_end() -> None:
    class Named:
        def __init__(self, name: str) -> None:
            self.trial_id = name

    feed: Any = Feed(map(Named, "abc"), 2)  # type: ignore[arg-type]

    first, second = feed.next_trial(), feed.next_trial()
    assert (first.trial_id, second.trial_id, feed.next_trial()) == ("a", "b", None)
    assert not feed.is_finished()
    feed.on_trial_complete("b", error=True)
    assert feed.next_trial().trial_id == "c"
    feed.on_trial_complete("a")
    assert feed.next_trial() is None
    assert feed.is_finished()
    assert Feed(iter(()), None).next_trial() is None
