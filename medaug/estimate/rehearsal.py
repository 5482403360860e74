"""The study in miniature on its own cluster: what one trial of each kind takes."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from medaug.audit.scan import note_leakage, scan
from medaug.errors import EnvironmentFault
from medaug.estimate.kinds import Kind, kind_of, mean_of, measure, warmed_up
from medaug.estimate.measured import VRAM_THERE, run_measured
from medaug.estimate.schedule import schedule
from medaug.estimate.standin import Patients, fewer, rows_of, write_stand_in
from medaug.plan import ArmVariant, plan_study
from medaug.room import row_bytes
from medaug.shelf import Shelf
from medaug.spec import StudySpec, TrialConfig
from medaug.sweep.display import Display
from medaug.sweep.runner import Sweep
from medaug.trial_folder import TrialFolder, write_json

EPOCHS = {"segment": 3, "generate": 6, "classify": 6}
"""The first warms up, the last may also finish; those in between are averaged."""
PIXELS = 100e6
"""Work of the U-Net in the miniature, in pixels x base channels squared: all of the demo."""
MOST_ROWS = 512
MOST_BYTES = 64 << 20
"""Of generated rows."""
CLASSIFIERS = 4
"""The classifier's cost does not depend on where its rows come from: so many are enough."""
SLICES, PRETRAIN = "slices-standin00000", "slices-standin00001"


@dataclass(frozen=True)
class Miniature:
    """What was measured, and at which size."""

    study: StudySpec
    rows: int
    n_synthetic: int
    kinds: dict[tuple[str, str], Kind]
    """(stage, arm variant or purpose) -> what it takes."""
    wave_s: dict[str, float]
    """By wave: what starting and ending it took beside its trials."""
    trial_s: float
    """What each trial takes besides its epochs."""
    slots: int
    """Trials that run at once."""
    vram_there: int
    """Bytes of one GPU; 0 without."""
    nodes: tuple[int, ...]
    """Bytes of memory that the ranks of each node may use."""
    scan_s: float
    """Looking for copies among the miniature's slices."""
    report_s: float
    """Leaderboard and report, at the size of the miniature."""


def rehearse(
    study: StudySpec,
    arms: Sequence[ArmVariant],
    patients: Patients,
    masks: bool,
    storage: Path,
    display: Display,
    *,
    address: str | None,
) -> Miniature:
    """Run one fold and one seed of ``study`` on stand-in slices, below ``storage``.

    All that it writes lies in one new folder there, which is gone at the end.

    Raises:
        EnvironmentFault: a trial does not fit into the cluster, or failed; says what would help.
    """
    small = miniature(study, patients)
    shown = fewer(patients, _rows(study), study)
    with _workplace(storage) as place:
        shelf = Shelf(place)
        write_stand_in(small, shown, masks, shelf.store_path(SLICES))
        if small.segmenter is not None and small.segmenter.pretrain is not None:
            write_stand_in(small, shown, masks, shelf.store_path(PRETRAIN))
        plan = plan_study(small, SLICES, PRETRAIN, shrunk(arms))
        folder = place / "rehearsal"
        waves: dict[str, tuple[float, list[tuple[TrialConfig, float]]]] = {}
        with Sweep(folder, place, study.resources, address=address, listeners=(display,)) as sweep:
            for title, trials in plan.waves():
                chosen = _one_of_each(trials)
                began = time.monotonic()
                outcomes = sweep.run(chosen, work=run_measured)
                wall_s = time.monotonic() - began
                for trial, outcome in zip(chosen, outcomes, strict=True):
                    if outcome.error:
                        raise _cannot(study, trial, outcome.error)
                seconds = [outcome.seconds for outcome in outcomes]
                waves[title] = wall_s, list(zip(chosen, seconds, strict=True))
            slots = sweep.slots(study.resources.ranks)
            nodes = tuple(sweep.memory_bytes())
        about = {"rows": rows_of(shown), "slots": slots, "nodes": nodes}
        scan_s, report_s = _afterwards(small, folder, shelf)
        return _measured(
            small, folder, shelf, waves, about | {"scan_s": scan_s, "report_s": report_s}
        )


def miniature(study: StudySpec, patients: Patients) -> StudySpec:
    """``study`` with few epochs and added rows, one seed."""
    segmenter = study.segmenter
    if segmenter is not None:
        pretrain = segmenter.pretrain
        if pretrain is not None:
            few = min(pretrain.epochs, EPOCHS["segment"])
            pretrain = pretrain.model_copy(update={"epochs": few})
        epochs = min(segmenter.epochs, EPOCHS["segment"])
        segmenter = segmenter.model_copy(update={"epochs": epochs, "pretrain": pretrain})
    epochs = min(study.classifier.epochs, EPOCHS["classify"])
    n = min(max(study.sweep.n_synthetic), _most_generated(study))
    return study.model_copy(
        update={
            "segmenter": segmenter,
            "classifier": study.classifier.model_copy(
                update={"epochs": epochs, "early_stop": None}
            ),
            "sweep": study.sweep.model_copy(
                update={"seeds": study.sweep.seeds[:1], "n_synthetic": (n,), "train_rows": None}
            ),
        }
    )


def shrunk(arms: Sequence[ArmVariant]) -> list[ArmVariant]:
    """The same arms for a few epochs, judged every third."""
    small = []
    for arm in arms:
        update: dict[str, Any] = {}
        if (epochs := getattr(arm.spec, "epochs", None)) is not None:
            update["epochs"] = min(epochs, EPOCHS["generate"])
        if (every := getattr(arm.spec, "eval_every", None)) is not None:
            update["eval_every"] = min(every, 3)
        small.append(ArmVariant(arm.name, arm.spec.model_copy(update=update), arm.point))
    return small


def _rows(study: StudySpec) -> int:
    """How many rows the miniature has at most: enough for two batches of everything."""
    batches = [study.classifier.batch_size]
    batches += [getattr(arm, "batch_size", 1) for arm in study.arms.values()]
    pixels = study.data.image_size**2
    most = MOST_ROWS
    if study.segmenter is not None:
        batches.append(study.segmenter.batch_size)
        most = min(most, int(PIXELS / (pixels * study.segmenter.base**2)))
    training = (1 - 1 / max(2, study.split.folds)) * (1 - study.split.val_fraction)
    return max(most, int(2 * max(batches) / training) + 1)


def _most_generated(study: StudySpec) -> int:
    return min(MOST_ROWS, max(32, MOST_BYTES // row_bytes(study)))


def _one_of_each(trials: Sequence[TrialConfig]) -> list[TrialConfig]:
    first: dict[tuple[str, str], TrialConfig] = {}
    for trial in trials:
        if trial.fold == 0 and trial.stage != "classify":
            first.setdefault(kind_of(trial), trial)
    classifiers = [trial for trial in trials if trial.fold == 0 and trial.stage == "classify"]
    return [*first.values(), *classifiers[:CLASSIFIERS]]


@contextmanager
def _workplace(storage: Path) -> Iterator[Path]:
    storage.mkdir(parents=True, exist_ok=True, mode=0o700)
    place = Path(tempfile.mkdtemp(prefix=".plan-", dir=storage))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _afterwards(study: StudySpec, folder: Path, shelf: Shelf) -> tuple[float, float]:
    """Seconds of the scan for copies, and of leaderboard and report."""
    from medaug.tracking.leaderboard import leaderboard_of
    from medaug.tracking.report.document import write_report

    began = time.perf_counter()
    note_leakage(folder, scan(shelf.open_store(SLICES)))
    scanned = time.perf_counter()
    write_json(folder / "study.json", study.canonical())
    leaderboard_of(folder)
    write_report(folder)
    return scanned - began, time.perf_counter() - scanned


def _measured(
    study: StudySpec,
    folder: Path,
    shelf: Shelf,
    waves: dict[str, tuple[float, list[tuple[TrialConfig, float]]]],
    about: dict[str, Any],
) -> Miniature:
    found: dict[tuple[str, str], list[Kind]] = {}
    overheads: list[float] = []
    vram_there, slots = 0, about["slots"]
    spent: dict[str, list[float]] = {}
    for title, (_, trials) in waves.items():
        kinds = []
        for number, (trial, seconds) in enumerate(trials):
            lines = TrialFolder(folder, trial.key).epochs()
            busy = sum(line["seconds"] + line["save_seconds"] for line in lines)
            spent.setdefault(title, []).append(busy)
            if number >= slots:  # the first ones also wait for their ranks to start
                overheads.append(max(0.0, seconds - busy))
            kinds.append(measure(trial, lines, folder, shelf))
            vram_there = max(vram_there, int(lines[-1]["metrics"].get(VRAM_THERE, 0)))
        for (trial, _), kind in zip(trials, warmed_up(kinds, slots), strict=True):
            found.setdefault(kind_of(trial), []).append(kind)
    trial_s = median(overheads) if overheads else 0.0
    wave_s = {}
    for title, (wall_s, _) in waves.items():
        work = schedule((busy + trial_s for busy in spent[title]), slots)
        wave_s[title] = max(0.0, wall_s - work)
    return Miniature(
        study=study,
        n_synthetic=study.sweep.n_synthetic[0],
        kinds={kind: mean_of(each) for kind, each in found.items()},
        wave_s=wave_s,
        trial_s=trial_s,
        vram_there=vram_there,
        **about,
    )


def _cannot(study: StudySpec, trial: TrialConfig, error: str) -> EnvironmentFault:
    """What a failed trial of the miniature says about the study."""
    batch = {"segment": "segmenter", "extract": "features", "classify": "classifier"}
    section = batch.get(trial.stage, f"arms.{trial.labels.get('arm', '')}")
    advice = "run `medaug doctor`"
    if "memory" in error:
        advice = f"lower {section}.batch_size or data.image_size, or give a rank a larger device"
        if trial.stage in ("generate", "classify") and study.features is not None:
            advice += f", or choose a smaller block than features.tap = {study.features.tap}"
    return EnvironmentFault(f"plan: {trial.stage} ({trial.title}) cannot run: {error}; {advice}")
