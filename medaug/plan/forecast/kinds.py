"""What one trial of a kind takes, as the miniature's records tell it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from medaug.plan.forecast.measured import CPU_S, RAM, VRAM
from medaug.spec import (
    ClassifyTrial,
    DrawTrial,
    ExtractTrial,
    GenerateTrial,
    LinearSpec,
    SegmentTrial,
    TrialConfig,
)
from medaug.storage.artifacts import Artifacts
from medaug.storage.trial_folder import TrialFolder

JUDGED = "val/fd"
"""What an epoch reports in which a generator is measured, which may take longer than training."""


@dataclass(frozen=True)
class Kind:
    """What one trial of a kind takes, on rows as many as the miniature had."""

    epochs: int
    """Of the miniature's trial: those of a trial whose configuration does not say."""
    first_s: float
    """The first epoch's extra: reading what is kept."""
    epoch_s: float
    judge_s: float
    """What measuring a generator adds to an epoch."""
    last_s: float
    """What follows the last epoch: generated rows and their quality, a classifier's threshold."""
    save_s: float
    """One checkpoint."""
    cpu_share: float
    """CPU seconds of a rank per second of wall time; below 1 the machine is shared, or waits."""
    ram_bytes: int
    """Peak of one rank."""
    vram_bytes: int
    folder_bytes: int
    """Checkpoints and records that a finished trial keeps."""
    output_bytes: int
    """Its model or store, at the miniature's rows."""


def kind_of(trial: TrialConfig) -> tuple[str, str]:
    """Trials of one kind differ in fold, seed and number of rows (drawn ones in steps) only."""
    if isinstance(trial, DrawTrial):
        return trial.stage, trial.arm
    if isinstance(trial, GenerateTrial):
        return kind_of_arm(trial.arm, trial.point)
    if isinstance(trial, ClassifyTrial):
        solved = isinstance(trial.classifier, LinearSpec)
        return trial.stage, "" if solved else trial.classifier.kind
    if isinstance(trial, ExtractTrial):
        return trial.stage, trial.encoder.kind if trial.encoder else ""
    return trial.stage, (trial.purpose or "") if isinstance(trial, SegmentTrial) else ""


def kind_of_arm(arm: str, point: Mapping[str, Any]) -> tuple[str, str]:
    """That of the trials which make the rows of an arm at a point of its grid."""
    return "generate", " ".join(map(str, (arm, *point.values())))


def measure(
    trial: TrialConfig, lines: list[dict[str, Any]], folder: Path, artifacts: Artifacts
) -> Kind:
    """Of one trial, from the ``lines`` of its epochs."""
    output_s = 0.0
    metrics = [line["metrics"] for line in lines]
    seconds = [line["seconds"] for line in lines]
    # CPU seconds are read when an epoch is over: those of the last one's checkpoint are in none.
    wall = sum(seconds) + sum(line["save_seconds"] for line in lines[:-1])
    if trial.stage == "generate":  # its last line is the writing of rows
        output_s = seconds.pop()
    first = last = judge = 0.0
    if trial.stage == "draw":  # a block each; the first has read the weights, the last none
        last, usual = seconds.pop(), seconds[-1]
        first = max(0.0, seconds[0] - usual)
    elif trial.stage == "extract" or len(seconds) < 3:
        usual = sum(seconds) / max(1, len(seconds))
    else:
        later = seconds[1:-1] if trial.stage == "classify" else seconds[1:]
        judged = [s for s, m in zip(later, metrics[1:], strict=False) if JUDGED in m]
        plain = [s for s, m in zip(later, metrics[1:], strict=False) if JUDGED not in m]
        usual = fmean(plain or judged)
        judge = max(0.0, fmean(judged) - usual) if plain and judged else 0.0
        first = max(0.0, seconds[0] - usual)
        last = max(0.0, seconds[-1] - usual) if trial.stage == "classify" else 0.0
    saves = [line["save_seconds"] for line in lines if line["save_seconds"] > 0]
    result = TrialFolder(folder, trial.key).result()
    names = result.made if result else ()
    made = [path(name) for name in names for path in (artifacts.store_path, artifacts.model_path)]
    return Kind(
        epochs=len(seconds),
        first_s=first,
        epoch_s=usual,
        judge_s=judge,
        last_s=last + output_s,
        save_s=sum(saves) / len(saves) if saves else 0.0,
        cpu_share=sum(m[CPU_S] for m in metrics) / wall if wall else 1.0,
        ram_bytes=int(max(m[RAM] for m in metrics)),
        vram_bytes=int(max(m.get(VRAM, 0) for m in metrics)),
        folder_bytes=bytes_in(TrialFolder(folder, trial.key).path),
        output_bytes=sum(bytes_in(each) for each in made),
    )


def mean_of(kinds: Sequence[Kind], every: Sequence[Kind]) -> Kind:
    """The mean times of ``kinds``, and the largest sizes of ``every`` trial alike."""

    def mean(name: str) -> float:
        return sum(getattr(kind, name) for kind in kinds) / len(kinds)

    times = ("first_s", "epoch_s", "judge_s", "last_s", "save_s", "cpu_share")
    sizes = ("ram_bytes", "vram_bytes", "folder_bytes", "output_bytes")
    body: dict[str, Any] = {name: mean(name) for name in times}
    body |= {name: max(getattr(kind, name) for kind in every) for name in sizes}
    return Kind(epochs=kinds[0].epochs, **body)


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
