"""What a person sees of a sweep."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from medaug.cli.display import TerminalDisplay
from medaug.cli.display_rows import Row
from medaug.spec import ClassifyTrial, GenerateTrial, NetworkSpec, WrittenArm
from medaug.storage.results import DivergedResult
from medaug.sweep.events import Listeners, Outcome
from medaug.sweep.trial.bundle import Bundle


def trial(arm: str) -> GenerateTrial:
    """``acgan`` is trained for three epochs, the others are fitted at once."""
    about = {"kind": "noise", "name": arm} | ({"epochs": 3} if arm == "acgan" else {})
    maker = WrittenArm.model_validate(about)
    return GenerateTrial(arm=arm, maker=maker, n=1, features="none", fold=1, seed=2)


def classifier(epochs: int, fold: int = 0) -> ClassifyTrial:
    spec = NetworkSpec(epochs=epochs)
    about = {"arm": "none", "kind": "none", "synthetic": False, "n_synthetic": 0}
    return ClassifyTrial.model_validate(
        {"classifier": spec, "features": "none", "fold": fold, **about}
    )


def run(display: TerminalDisplay) -> None:
    """A wave of five: two done before, one done, one failed, one still running."""
    done, bad, running = trial("acgan"), trial("[bold]flow"), trial("smote")
    display.on_wave_start("generate", 5, 2)
    for config in (done, bad, running):
        display.on_trial_start(config)
    for epoch in (3, 4):  # resumed after epoch 2
        display.on_epoch(done, epoch, {"train/loss": 1.0, "val/fd": 9.0 - epoch})
    display.on_place(running, "cuda:3 @ 10.0.0.7")
    display.on_epoch(running, 1, {"val/fd": 2.0})
    display.on_trial_end(Outcome(done.key, "done", 4, None, None, 75.0))
    display.on_trial_end(Outcome(bad.key, "failed", 0, None, "hang: [rank 1]; look", 3.0))


def test_a_trial_that_came_to_nothing_says_which_and_why() -> None:
    text = io.StringIO()
    display = TerminalDisplay(Console(file=text, width=200))
    alone, packed = trial("acgan"), trial("smote")
    bundle = Bundle((packed, trial("noise")))
    display.on_wave_start("generate", 3, 0)
    display.on_trial_start(alone)
    display.on_bundle_start(bundle)
    collapsed = DivergedResult(why="ended in epoch 2 by mode collapse")
    display.on_trial_end(Outcome(alone.key, "diverged", 2, collapsed))
    few = DivergedResult(why="300 rows wanted, but only 0 were made")
    display.on_trial_end(Outcome(packed.key, "diverged", 1, few, bundle=bundle.key))
    assert text.getvalue().splitlines()[1:] == [
        "diverged acgan fold 1 seed 2: ended in epoch 2 by mode collapse",
        "diverged smote fold 1 seed 2: 300 rows wanted, but only 0 were made",
    ]


def test_plain_lines_without_a_terminal() -> None:
    text = io.StringIO()
    display = TerminalDisplay(Console(file=text, width=200))
    run(display)
    display.on_trial_end(Outcome(trial("smote").key, "stopped", 1, None, None, 5.0))
    display.on_wave_end()
    lines = text.getvalue().splitlines()
    assert lines == [
        "generate: 5 trials, 2 done before",
        "generate 3/5 done acgan fold 1 seed 2: epoch 3 FD 5 (75 s)",
        "failed [bold]flow fold 1 seed 2: hang: [rank 1]; look",
        "generate 5/5 stopped smote fold 1 seed 2: FD 2 (5.0 s)",
        lines[-1],
    ]
    assert lines[-1].startswith("generate: 1 done, 1 failed, 1 stopped, 2 done before in ")


def test_table_on_a_terminal() -> None:
    text = io.StringIO()
    console = Console(file=text, width=120, height=30, force_terminal=True, color_system=None)
    with TerminalDisplay(console) as display:
        run(display)
        console.print(display._view())
        display.on_wave_end()
    shown = text.getvalue()
    assert "generate 4/5 · 1 running · 1 failed · " in shown
    assert "ETA" in shown
    assert "━" in shown
    row = next(line for line in shown.splitlines() if "smote" in line and "FD 2" in line)
    assert " ".join(row.split()) == "smote 1 2 running 1 FD 2 cuda:3 @ 10.0.0.7"
    assert "failed [bold]flow fold 1 seed 2: hang: [rank 1]; look" in shown


def lines_of(display: TerminalDisplay) -> list[str]:
    paper = Console(file=io.StringIO(), width=display.console.width)
    with paper.capture() as shown:
        paper.print(display._view())
    return shown.get().splitlines()


@pytest.mark.parametrize(
    ("width", "cells"),
    [(80, "smote 1 2 1 FD 2 cuda:3"), (200, "smote 1 2 running 1 FD 2 cuda:3 @ 10.0.0.7")],
)
def test_the_table_fits_the_terminal(width: int, cells: str) -> None:
    console = Console(
        file=io.StringIO(), width=width, height=30, force_terminal=True, color_system=None
    )
    with TerminalDisplay(console) as display:
        run(display)
        shown = lines_of(display)
        assert all(len(line) <= width for line in shown)
        assert cells in [" ".join(line.split()) for line in shown]
        assert not any("…" in line for line in shown)
        display.on_wave_end()


def test_trials_keep_their_lines_when_others_end() -> None:
    console = Console(file=io.StringIO(), width=120, height=30, force_terminal=True)
    trials = [trial(name) for name in ("first", "second", "third", "fourth")]
    with TerminalDisplay(console) as display:
        display.on_wave_start("generate", 4, 0)
        for config in trials[:3]:
            display.on_trial_start(config)
        before = lines_of(display)
        display.on_trial_end(Outcome(trials[0].key, "done", 1, {}, None, 1.0))
        display.on_trial_end(Outcome(trials[1].key, "done", 1, {}, None, 1.0))
        display.on_trial_start(trials[3])
        after = lines_of(display)
        display.on_wave_end()
    assert len(before) == len(after)
    assert after[-1] == before[-1]
    assert [line.split()[:1] for line in after[-3:]] == [["fourth"], [], ["third"]]


def test_many_trials_fit_the_screen() -> None:
    console = Console(file=io.StringIO(), width=80, height=20, force_terminal=True)
    display = TerminalDisplay(console)
    display.on_wave_start("classify", 500, 0)
    for number in range(400):
        display.on_trial_start(trial(str(number)))
    assert display._table().row_count < 20
    display.on_wave_end()


def test_a_wave_that_was_done_before_is_one_line() -> None:
    text = io.StringIO()
    display = TerminalDisplay(Console(file=text, width=200))
    display.on_wave_start("extract", 5, 5)
    display.on_wave_end()
    assert text.getvalue() == "extract: 5 trials, 5 done before\n"


def test_progress_outside_of_trials() -> None:
    for terminal in (False, True):
        text = io.StringIO()
        display = TerminalDisplay(Console(file=text, width=100, force_terminal=terminal))
        with display.progress("slices") as advance:
            advance(3, 10, "volume [x]")
        assert "slices" in text.getvalue()


def test_a_broken_listener_is_dropped_and_the_others_hear_on() -> None:
    heard: list[str] = []

    class Good:
        def on_wave_end(self) -> None:
            heard.append("end")

    class Bad:
        def on_wave_end(self) -> None:
            raise RuntimeError("no")

    listeners = Listeners([Bad(), Good()])  # type: ignore[list-item]
    listeners.tell("on_wave_end")
    listeners.tell("on_wave_end")
    assert heard == ["end", "end"]


def test_pace_counts_from_the_first_report(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Row(trial("acgan"))
    assert (row.epoch, row.seconds_per_epoch()) == (None, None)
    for epoch, now in ((7, 100.0), (8, 102.0), (11, 108.0)):  # resumed after epoch 6
        monkeypatch.setattr("time.monotonic", lambda now=now: now)
        row.update(epoch, {"val/iou": 0.5 if epoch == 8 else 0.3})
    assert row.epoch == 11
    assert row.seconds_per_epoch() == 2.0
    assert row.headline() == "IoU 0.5"


def test_a_better_metric_takes_the_place_of_a_lesser_one() -> None:
    row = Row(trial("acgan"))
    for epoch, metrics in enumerate(({"train/d_loss": 2.0}, {"train/d_loss": 1.0, "val/fd": 9.0})):
        row.update(epoch, metrics)
    row.update(3, {"train/d_loss": 0.5})
    assert row.headline() == "FD 9"
    rows = Row(trial("extract"))
    rows.update(1, {"rows": 301.0})
    assert rows.headline() == ""


def test_epochs_that_are_left_are_known_from_the_configuration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = classifier(epochs=30)
    row = Row(config)
    for epoch, now in ((1, 100.0), (3, 104.0)):
        monkeypatch.setattr("time.monotonic", lambda now=now: now)
        row.update(epoch, {})
    assert row.left_s(otherwise=99) == 27 * 2.0
    unknown = Row(trial("extract"))
    assert unknown.left_s(otherwise=20) is None


def test_a_trial_that_starts_again_says_so() -> None:
    display = TerminalDisplay(Console(file=io.StringIO(), width=100))
    display.on_wave_start("generate", 1, 0)
    config = trial("acgan")
    display.on_trial_start(config)
    assert display._rows[config.key].state == "starting"
    display.on_epoch(config, 1, {})
    assert display._rows[config.key].state == "running"
    display.on_trial_start(config)
    assert display._rows[config.key].state == "try 2"


def test_what_is_left_counts_waiting_trials_and_the_rest_of_running_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    display = TerminalDisplay(Console(file=io.StringIO(), width=100))
    display.on_wave_start("classify", 6, 0)
    done, half, new = (classifier(10, fold) for fold in range(3))
    for config in (done, half, new):
        display.on_trial_start(config)
    assert "ETA" not in display._title().plain
    display.on_trial_end(Outcome(done.key, "done", 10, None, None, 20.0))
    for epoch, now in ((1, 100.0), (5, 108.0)):
        monkeypatch.setattr("time.monotonic", lambda now=now: now)
        display.on_epoch(half, epoch, {})
    work_s = 3 * 20 + 5 * 2 + 20  # three wait, one has five epochs left, one has just begun
    assert display._title().plain.endswith(f"ETA {work_s / 2:.0f} s")
