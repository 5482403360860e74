"""From what one trial of each kind took to what the whole study takes: arithmetic, no measuring."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medaug.arms.monai_bundle import BLOCK
from medaug.experiment import is_solved
from medaug.plan.disk import row_bytes, row_bytes_of
from medaug.plan.forecast.kinds import Kind, kind_of
from medaug.plan.forecast.rehearsal import Miniature
from medaug.plan.forecast.schedule import schedule
from medaug.plan.trials import Plan
from medaug.spec import (
    ClassifyTrial,
    DrawTrial,
    GenerateTrial,
    SegmentTrial,
    StudySpec,
    TrialConfig,
)
from medaug.spec.saving import save_interval_s
from medaug.train.resident import CPU_BYTES


@dataclass(frozen=True)
class StageCost:
    """One wave of the study."""

    stage: str
    trials: int
    rank_s: float
    """Seconds that its trials hold ranks, starting and waiting included."""
    cpu_s: float
    """CPU seconds that these use."""
    wall_s: float
    ram_bytes: int
    """Peak of one rank."""
    vram_bytes: int
    disk_bytes: int
    """Models, stores and checkpoints that it leaves."""


@dataclass(frozen=True)
class Estimate:
    """What a study takes on the cluster that it was rehearsed on."""

    rows: int
    slices_bytes: int
    stages: tuple[StageCost, ...]
    slots: int
    ranks: int
    gpus_per_rank: float
    outside_s: float
    """Starting, reading scans, looking for copies, leaderboard, report and MLflow."""

    @property
    def trials(self) -> int:
        return sum(stage.trials for stage in self.stages)

    @property
    def wall_s(self) -> float:
        return self.outside_s + sum(stage.wall_s for stage in self.stages)

    @property
    def device_hours(self) -> float:
        """Rank hours: of GPUs where ranks have any, else of CPU ranks."""
        share = self.gpus_per_rank or 1.0
        return share * sum(stage.rank_s for stage in self.stages) / 3600

    @property
    def cpu_s(self) -> float:
        return sum(stage.cpu_s for stage in self.stages)

    @property
    def ram_bytes(self) -> int:
        return max(stage.ram_bytes for stage in self.stages)

    @property
    def vram_bytes(self) -> int:
        return max(stage.vram_bytes for stage in self.stages)

    @property
    def disk_bytes(self) -> int:
        return self.slices_bytes + sum(stage.disk_bytes for stage in self.stages)

    def to_json(self) -> dict[str, Any]:
        """All of it, JSON-ready."""
        names = ("trials", "wall_s", "device_hours", "cpu_s", "ram_bytes", "vram_bytes")
        body: dict[str, Any] = {name: getattr(self, name) for name in (*names, "disk_bytes")}
        body |= {name: getattr(self, name) for name in ("rows", "slots", "ranks", "outside_s")}
        return body | {"stages": [vars(stage) for stage in self.stages]}


def estimate(
    plan: Plan,
    small: Miniature,
    study: StudySpec,
    rows: int,
    masks: bool,
    outside_s: float,
    pretrain_rows: int = 0,
) -> Estimate:
    """The cost of ``plan`` on ``rows`` slices, from the miniature of the same study; its U-Net is
    pre-trained on ``pretrain_rows``."""
    stages, all_rows = [], rows
    for title, trials in plan.waves():
        rows = pretrain_rows if title == "pretrain" else all_rows
        kinds = [small.kinds[kind_of(trial)] for trial in trials]
        seconds = [
            trial_seconds(trial, kind, small, study, rows)
            for trial, kind in zip(trials, kinds, strict=True)
        ]
        warming_s, slots = small.warming_s[title], min(small.slots, len(trials))
        starts = [0.0 if is_solved(trial) else small.trial_s for trial in trials]
        whole = (s + start_s for s, start_s in zip(seconds, starts, strict=True))
        wall_s = warming_s + schedule(whole, small.slots)
        cpu = [s * kind.cpu_share for s, kind in zip(seconds, kinds, strict=True)]
        held_s = sum(seconds) + sum(starts) + slots * (small.start_s + warming_s)
        cpu_s = sum(cpu) + slots * (small.start_cpu_s + warming_s * kinds[0].cpu_share)
        stages.append(
            StageCost(
                stage=title,
                trials=len(trials),
                rank_s=study.resources.ranks * held_s,
                cpu_s=study.resources.ranks * cpu_s,
                wall_s=small.wave_s[title] + wall_s,
                ram_bytes=max(kind.ram_bytes for kind in kinds)
                + _kept_growth(title, small, study, rows),
                vram_bytes=max(kind.vram_bytes for kind in kinds),
                disk_bytes=sum(
                    trial_bytes(trial, kind, small, study, rows)
                    for trial, kind in zip(trials, kinds, strict=True)
                ),
            )
        )
    return Estimate(
        rows=all_rows,
        slices_bytes=slices_bytes(study, all_rows + pretrain_rows, masks),
        stages=tuple(stages),
        slots=small.slots,
        ranks=study.resources.ranks,
        gpus_per_rank=study.resources.gpus,
        outside_s=outside_s,
    )


def trial_seconds(
    trial: TrialConfig, kind: Kind, small: Miniature, study: StudySpec, rows: int
) -> float:
    """Wall seconds of one trial, without what Ray adds.

    An epoch is as long as its rows are many, where no key gives its steps; what is generated at
    the end takes as long as it is much. A block of drawn images takes as long as the sampler has
    steps.
    """
    if isinstance(trial, DrawTrial):
        blocks = len(trial.numbers) * -(-trial.n // BLOCK)
        return kind.first_s + -(-blocks // trial.ranks) * trial.steps * kind.epoch_s + kind.last_s
    share = rows / small.rows
    kept = trial.train_rows if isinstance(trial, GenerateTrial | ClassifyTrial) else None
    if kept is not None:
        share *= min(1.0, kept / (rows * _training_share(study)))
    last_s = kind.last_s
    if isinstance(trial, GenerateTrial):
        arm = trial.maker
        epochs = int(arm.get("epochs") or kind.epochs)
        if arm.get("steps_per_epoch"):
            share = 1.0
        last_s *= trial.n / small.n_synthetic
        if every := arm.get("eval_every"):
            last_s += -(-epochs // every) * kind.judge_s
    elif isinstance(trial, ClassifyTrial):
        epochs = getattr(trial.classifier, "epochs", 1)
        last_s *= rows / small.rows
        if trial.protocol != "honest":  # an arm with more rows takes more steps
            real = _training_share(study)
            own = rows * real * min(1.0, share * small.rows / rows)
            adds = any(arm.kind != "none" for arm in study.arms.values())
            rehearsed = small.rows * real + (small.n_synthetic if adds else 0)
            share = (own + trial.n_synthetic) / rehearsed
    else:
        epochs = trial.segmenter.epochs if isinstance(trial, SegmentTrial) else kind.epochs
    trained_s = epochs * kind.epoch_s * share
    every_s = save_interval_s(study.resources.checkpoint_every_s, kind.save_s)
    saves = min(epochs, 1 + trained_s / every_s) if every_s else epochs
    return kind.first_s + trained_s + saves * kind.save_s + last_s


def trial_bytes(
    trial: TrialConfig, kind: Kind, small: Miniature, study: StudySpec, rows: int
) -> int:
    """What a finished trial leaves in the storage."""
    if isinstance(trial, DrawTrial):
        return kind.folder_bytes + trial.rows * row_bytes_of(trial, study)
    made = float(kind.output_bytes)
    if trial.stage == "extract":
        made *= rows / small.rows
    if isinstance(trial, GenerateTrial):
        row = row_bytes(study)
        made = max(0.0, made - small.n_synthetic * row) + trial.n * row
    return int(kind.folder_bytes + made)


def slices_bytes(study: StudySpec, rows: int, masks: bool) -> int:
    """The store of slices: float32, and a byte per pixel of mask."""
    return rows * study.data.image_size**2 * (5 if masks else 4)


def stores_bytes(study: StudySpec, plan: Plan, rows: int, masks: bool) -> Mapping[str, int]:
    """What the stores alone take, by stage: known before anything is measured."""
    row = row_bytes(study)
    return {
        "slices": slices_bytes(study, rows, masks),
        "draw": sum(trial.rows * row_bytes_of(trial, study) for trial in plan.draw),
        "extract": sum(rows * row_bytes_of(trial, study) for trial in plan.extract),
        "generate": sum(trial.n for trial in plan.generate) * row,
    }


def _training_share(study: StudySpec) -> float:
    """Of all rows, those of a fold's training patients."""
    split = study.split
    held_out = split.eval_fraction if split.scheme == "published" else 1 / split.folds
    return (1 - split.test_fraction) * (1 - held_out) * (1 - split.val_fraction)


def _kept_growth(stage: str, small: Miniature, study: StudySpec, rows: int) -> int:
    """Rows that a GAN or a classifier keeps in memory beyond those of the miniature."""
    if stage not in ("generate", "classify"):
        return 0
    row, most = row_bytes(study), CPU_BYTES
    return max(0, min(most, rows * row) - min(most, small.rows * row))
