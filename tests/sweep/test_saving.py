"""How often epochs are saved, and what a trial that is killed loses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from toy_trials import config

from medaug.spec import ResourceSpec
from medaug.spec.saving import BETWEEN_FAILURES_S, LONGEST_S, save_interval_s
from medaug.storage.trial_folder import TrialFolder
from medaug.sweep.trial import recorder
from medaug.sweep.trial.fence import Fence
from medaug.sweep.trial.recorder import Recorder
from medaug.train.checkpoint import Checkpoint, Ledger, Progress


def test_what_is_given_is_taken() -> None:
    assert save_interval_s(0.0, 5.0) == 0
    assert save_interval_s(600.0, 0.001) == 600
    assert save_interval_s("auto", None) == LONGEST_S


@pytest.mark.parametrize("save_s", [0.0001, 0.001, 0.01, 0.02])
def test_auto_costs_least(save_s: float) -> None:
    """By brute force over what saves cost, and on average half an interval that is done again."""

    def cost(interval_s: float) -> float:
        return save_s / interval_s + interval_s / 2 / BETWEEN_FAILURES_S

    tried = [0.01 * 1.01**k for k in range(2000)]
    best = min(tried, key=cost)
    assert save_interval_s("auto", save_s) == pytest.approx(best, rel=0.01)


def test_auto_is_never_longer_than_what_is_promised() -> None:
    assert save_interval_s("auto", 0.021) == LONGEST_S
    assert save_interval_s("auto", 60.0) == LONGEST_S


COMMIT = Ledger.commit


class Clock:
    """Time that passes only when something takes it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    perf_counter = time = monotonic


@pytest.fixture
def train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, float, float]]:
    def run(
        epochs: int, epoch_s: float, save_s: float, every_s: float | str = "auto"
    ) -> tuple[int, float, float]:
        """(saves, seconds of training that a kill may cost, share of the time spent on saves) of a
        trial on a disk that takes ``save_s`` for a checkpoint."""
        clock = Clock()
        monkeypatch.setattr(recorder, "time", clock)
        saves: list[int] = []

        def slow(ledger: Ledger, checkpoint: Checkpoint, **rest: object) -> None:
            COMMIT(ledger, checkpoint, **rest)  # type: ignore[arg-type]
            saves.append(checkpoint.epoch)
            clock.now += save_s

        monkeypatch.setattr(Ledger, "commit", slow)
        trial = config("x", epochs=epochs, seconds=epoch_s, save=save_s)
        folder = TrialFolder(tmp_path / f"{epoch_s}-{save_s}-{every_s}", trial.key)
        folder.claim(trial)
        record = Recorder(folder, every_s, Fence(folder, (1, 1)))  # type: ignore[arg-type]
        lost = 0.0
        for epoch in range(1, epochs + 1):
            clock.now += epoch_s
            unsaved = epoch - (saves[-1] if saves else 0)
            lost = max(lost, unsaved * epoch_s)
            made = Checkpoint(epoch, epoch, {"w": torch.zeros(1)}, {})
            record.record(Progress(epoch, {}, made), seconds=epoch_s)
        return len(saves), lost, len(saves) * save_s / (clock.now - 1000.0)

    return run


@pytest.mark.parametrize("epoch_s", [0.05, 1.0, 7.0, 29.0, 40.0, 600.0])
@pytest.mark.parametrize("save_s", [0.001, 0.02, 0.5])
def test_a_kill_costs_one_epoch_or_30_s(
    train: Callable[..., tuple[int, float, float]], epoch_s: float, save_s: float
) -> None:
    """Killed in the last instant of an epoch, it loses that one and those since the last save."""
    epochs = max(4, min(200, int(120 / epoch_s)))
    saves, lost, share = train(epochs, epoch_s, save_s)
    assert lost <= max(epoch_s, LONGEST_S) + 1e-6
    assert saves >= (epochs if epoch_s >= LONGEST_S else 0)
    assert share <= 0.05


def test_saving_every_epoch_of_a_second_is_what_it_costs(
    train: Callable[..., tuple[int, float, float]],
) -> None:
    """The classifier study that spent half of its time on saves."""
    assert train(120, 1.0, 0.8, every_s=0) == (120, 1.0, pytest.approx(0.8 / 1.8))
    saves, lost, share = train(120, 1.0, 0.8)
    assert saves == 4
    assert lost <= 30
    assert share < 0.03


def test_it_is_the_default() -> None:
    assert ResourceSpec().checkpoint_every_s == "auto"
