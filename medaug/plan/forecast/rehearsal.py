"""The study in miniature on its own cluster: what one trial of each kind takes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

from medaug.arms.monai_bundle import BLOCK, Bundle
from medaug.audit.scan import note_leakage, scan
from medaug.errors import EnvironmentFault
from medaug.experiment.draw import publish_bundle
from medaug.plan.disk import row_bytes
from medaug.plan.forecast.kinds import Kind, kind_of, kind_of_arm, mean_of, measure
from medaug.plan.forecast.measured import START_CPU_S, VRAM_THERE, WARM, code_of, run_measured
from medaug.plan.forecast.schedule import schedule
from medaug.plan.forecast.standin import Patients, fewer, rows_of, write_stand_in
from medaug.plan.trials import plan_study
from medaug.plan.variants import ArmVariant, pool_arms
from medaug.results.leaderboard import leaderboard_of
from medaug.results.report.document import write_report
from medaug.results.report.row_figures import count_figured
from medaug.spec import (
    ClassifyTrial,
    DrawTrial,
    StudySpec,
    TrackingSpec,
    TrialConfig,
    WrittenArm,
)
from medaug.spec.arms import ClassicalSpec
from medaug.spec.per_class import UNIFORM
from medaug.storage.artifacts import Artifacts
from medaug.storage.files import private_folder
from medaug.storage.temporary import temporary_folder
from medaug.storage.trial_folder import TrialFolder, write_json
from medaug.sweep.display import Display
from medaug.sweep.runner import Sweep
from medaug.tracking.tracker import Tracker
from medaug.tracking.uri import database_uri

EPOCHS = {"segment": 3, "generate": 6, "classify": 6}
"""The first warms up, the last may also finish; those in between are averaged."""
PIXELS = 100e6
"""Work of the U-Net in the miniature, in pixels x base channels squared: all of the demo."""
MOST_ROWS = 512
MOST_BYTES = 64 << 20
"""Of generated rows."""
CLASSIFIERS = 6
"""The classifier's cost does not depend on where its rows come from: so many are enough."""
SEEDS = 3
"""The first trial on a slot loads libraries and picks kernels: an arm is rehearsed up to so often,
so that one of its trials comes to a slot that is warm."""
SLICES, PRETRAIN, POOL = (f"slices-standin0000{i}" for i in range(3))
Waves = tuple[float, list[tuple[TrialConfig, float]]]
"""Wall seconds of a wave; its trials and the seconds of each."""


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
    warming_s: dict[str, float]
    """By wave: what the first trials on a slot take longer than those that follow."""
    trial_s: float
    """What each trial takes besides its epochs."""
    start_s: float
    """Until the ranks of a slot are ready for their first trial, and the CPU seconds of one."""
    start_cpu_s: float
    slots: int
    """Trials that run at once."""
    vram_there: int
    """Bytes of one GPU; 0 without."""
    gpus: str
    """Which are used, and which stand idle."""
    nodes: tuple[int, ...]
    """Bytes of memory that the ranks of each node may use."""
    scan_s: float
    """Looking for copies among the miniature's slices."""
    figures_s: float
    """Drawing the figures of one trial, or one row of the leaderboard, that is drawn."""
    finish_s: float
    """Leaderboard, report, MLflow's last news and the end of the cluster."""


def rehearse(
    study: StudySpec,
    arms: Sequence[ArmVariant],
    draws: Sequence[tuple[DrawTrial, Bundle]],
    patients: Patients,
    masks: bool,
    storage: Path,
    display: Display,
    *,
    address: str | None,
) -> Miniature:
    """Run one fold of ``study`` on stand-in slices, below ``storage``.

    All that it writes lies in one new folder there, which is gone at the end: MLflow's runs too.

    Raises:
        EnvironmentFault: a trial does not fit into the cluster, or failed; says what would help.
    """
    small = miniature(study, patients)
    shown = fewer(patients, _rows(study), study)
    with _workplace(storage) as place:
        small = small.model_copy(
            update={"storage": place, "tracking": TrackingSpec(uri=database_uri(place))}
        )
        artifacts = Artifacts(place)
        write_stand_in(small, shown, masks, artifacts.store_path(SLICES))
        if small.segmenter is not None and small.segmenter.pretrain is not None:
            write_stand_in(small, shown, masks, artifacts.store_path(PRETRAIN))
        if pool_arms(small):
            write_stand_in(small, shown, masks, artifacts.store_path(POOL))
        for draw, bundle in draws:
            publish_bundle(draw, bundle, artifacts)
        few = [first_blocks(draw) for draw, _ in draws]
        plan = plan_study(small, SLICES, PRETRAIN, shrunk(arms), pool=POOL, draws=few)
        folder = place / "rehearsal"
        waves: dict[str, Waves] = {}
        tracker = Tracker(small, folder)  # a study has one, and it computes beside the ranks
        resources = study.resources.model_copy(update={"budget_hours": None})  # that is the run's
        listeners = display, tracker
        with Sweep(folder, place, resources, address=address, listeners=listeners) as sweep:
            write_json(folder / "study.json", small.canonical())
            with tracker:
                for title, trials in plan.waves():
                    chosen = [t for t in _few(trials) if all(map(artifacts.has, t.inputs))]
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
                whole = {"budget_hours": study.resources.budget_hours}
                settled = sweep.resources.model_copy(update=whole)
                small = small.model_copy(update={"resources": settled})
                scan_s = _scan(folder, artifacts)
                ended = time.monotonic()
                board = leaderboard_of(folder)
                report, figures_s, again_s = _report(folder)
                tracker.finish(board, report)
        finish_s = time.monotonic() - ended - figures_s - again_s
        made = count_figured(trial for _, trials in waves.values() for trial, _ in trials)
        about = {
            **{"rows": rows_of(shown), "slots": slots, "nodes": nodes, "scan_s": scan_s},
            "gpus": sweep.gpus,
            **{"figures_s": figures_s / max(1, made), "finish_s": finish_s},
        }
        found = _measured(small, folder, artifacts, waves, about)
        return replace(found, kinds=found.kinds | _stood_in_for(arms, found.kinds))


def miniature(study: StudySpec, patients: Patients) -> StudySpec:
    """``study`` with few epochs, added rows and seeds."""
    segmenter = study.segmenter
    if segmenter is not None:
        pretrain = segmenter.pretrain
        if pretrain is not None:
            few = min(pretrain.epochs, EPOCHS["segment"])
            pretrain = pretrain.model_copy(update={"epochs": few})
        epochs = min(segmenter.epochs, EPOCHS["segment"])
        segmenter = segmenter.model_copy(update={"epochs": epochs, "pretrain": pretrain})
    n = min(max(study.sweep.n_synthetic), _most_generated(study))
    seeds = tuple(dict.fromkeys([*study.sweep.seeds, *range(SEEDS)]))[:SEEDS]
    return study.model_copy(
        update={
            "segmenter": segmenter,
            "classifier": study.classifier.at_most(EPOCHS["classify"]),
            "classifiers": {
                name: each.at_most(EPOCHS["classify"]) for name, each in study.classifiers.items()
            },
            "sweep": study.sweep.model_copy(
                update={
                    **{"seeds": seeds, "n_synthetic": (n,), "per_class": (UNIFORM,)},
                    **{"train_rows": None, "draws": 1},
                }
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
        spec = arm.spec.model_copy(update=update)
        if arm.arm.reads_given:  # nothing is read beforehand: images that are encoded take as long
            spec = ClassicalSpec(real_rows=spec.real_rows)
        small.append(ArmVariant(arm.name, spec, arm.point))
    return small


def first_blocks(trial: DrawTrial) -> DrawTrial:
    """Two blocks of images on every rank in one step of the sampler, whose steps are alike."""
    n = 2 * BLOCK * trial.ranks
    one = {"classes": trial.classes[:1], "numbers": trial.numbers[:1], "n": n, "steps": 1}
    return trial.model_copy(update=one)


def _stood_in_for(
    arms: Sequence[ArmVariant], kinds: Mapping[tuple[str, str], Kind]
) -> dict[tuple[str, str], Kind]:
    """What was measured of one arm, for all for which the same stands in: it is rehearsed once."""
    of_maker: dict[str, list[tuple[str, str]]] = {}
    for arm in shrunk(arms):
        made_by = WrittenArm.of(arm.spec).signature()
        of_maker.setdefault(made_by, []).append(kind_of_arm(arm.name, arm.point))
    return {
        kind: kinds[measured]
        for alike in of_maker.values()
        for measured in [next((kind for kind in alike if kind in kinds), None)]
        if measured is not None
        for kind in alike
    }


def _rows(study: StudySpec) -> int:
    """How many rows the miniature has at most: enough for two batches of everything."""
    batches = [
        getattr(each, "batch_size", 1) for each in (*study.judges.values(), *study.arms.values())
    ]
    pixels = study.data.image_size**2
    most = MOST_ROWS
    if study.segmenter is not None:
        batches.append(study.segmenter.batch_size)
        most = min(most, int(PIXELS / (pixels * study.segmenter.base**2)))
    training = (1 - 1 / max(2, study.split.folds)) * (1 - study.split.val_fraction)
    return max(most, int(2 * max(batches) / training) + 1)


def _most_generated(study: StudySpec) -> int:
    return min(MOST_ROWS, max(32, MOST_BYTES // row_bytes(study)))


def _few(trials: Sequence[TrialConfig]) -> list[TrialConfig]:
    """Those of a wave to rehearse: one of each kind, then some again for slots that are warm."""
    trials = [trial for trial in trials if trial.fold == 0]
    seeds = list(dict.fromkeys(trial.seed for trial in trials))
    if classify := [trial for trial in trials if isinstance(trial, ClassifyTrial)]:
        # With added rows, by which an epoch as_published is longer; those who need no generator
        # can be had with any seed.
        order = sorted(classify, key=lambda t: (not t.n_synthetic, seeds.index(t.seed)))
        by_kind: dict[tuple[str, str], list[TrialConfig]] = {}
        for one in order:
            by_kind.setdefault(kind_of(one), []).append(one)
        return [one for group in by_kind.values() for one in group[:CLASSIFIERS]]
    kinds: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for trial in trials:
        kinds.setdefault(code_of(trial), []).append(kind_of(trial))
    chosen = []
    for turn, seed in enumerate(seeds):
        for trial in (trial for trial in trials if trial.seed == seed):
            alike = list(dict.fromkeys(kinds[code_of(trial)]))
            wanted = (len(alike), 2, 1 if len(alike) == 1 else 0)[turn]
            if alike.index(kind_of(trial)) < wanted:
                chosen.append(trial)
    return chosen


@contextmanager
def _workplace(storage: Path) -> Iterator[Path]:
    private_folder(storage)
    with temporary_folder(".plan-", storage) as place:
        yield place


def _scan(folder: Path, artifacts: Artifacts) -> float:
    began = time.perf_counter()
    note_leakage(folder, scan(artifacts.open_store(SLICES)))
    return time.perf_counter() - began


def _report(folder: Path) -> tuple[Path, float, float]:
    """The report; seconds that its figures took; and those of writing it once more, which is quick
    because figures that are there are not drawn again."""
    began = time.perf_counter()
    write_report(folder)
    drawn = time.perf_counter()
    report = write_report(folder)
    again_s = time.perf_counter() - drawn
    return report, max(0.0, drawn - began - again_s), again_s


def _measured(
    study: StudySpec,
    folder: Path,
    artifacts: Artifacts,
    waves: dict[str, Waves],
    about: dict[str, Any],
) -> Miniature:
    kinds: dict[tuple[str, str], Kind] = {}
    wave_s, warming_s = {}, {}
    busy: dict[str, list[float]] = {}
    beside: dict[bool, list[float]] = {True: [], False: []}  # by whether the ranks were new
    start_cpu_s, vram_there = 0.0, 0
    for title, (_, trials) in waves.items():
        cold: dict[tuple[str, str], list[tuple[Kind, float]]] = {}
        warm: dict[tuple[str, str], list[tuple[Kind, float]]] = {}
        codes = {}
        for trial, seconds in trials:
            lines = TrialFolder(folder, trial.key).epochs()
            spent_s = sum(line["seconds"] + line["save_seconds"] for line in lines)
            busy.setdefault(title, []).append(spent_s)
            first = lines[0]["metrics"]
            beside[START_CPU_S in first].append(max(0.0, seconds - spent_s))
            start_cpu_s = max(start_cpu_s, first.get(START_CPU_S, 0.0))
            vram_there = max(vram_there, int(first.get(VRAM_THERE, 0)))
            found = measure(trial, lines, folder, artifacts), spent_s
            (warm if first[WARM] else cold).setdefault(kind_of(trial), []).append(found)
            codes[kind_of(trial)] = code_of(trial)
        extra_s: dict[tuple[str, str], float] = {}
        for kind, code in codes.items():
            every = cold.get(kind, []) + warm.get(kind, [])
            usual = warm.get(kind, every)
            kinds[kind] = mean_of([each for each, _ in usual], [each for each, _ in every])
            if kind in cold and kind in warm:
                longer_s = fmean(s for _, s in cold[kind]) - fmean(s for _, s in warm[kind])
                extra_s[code] = max(extra_s.get(code, 0.0), longer_s)
        warming_s[title] = sum(extra_s.values())
    trial_s = median(beside[False]) if beside[False] else 0.0
    for title, (wall_s, _) in waves.items():
        work = schedule((spent_s + trial_s for spent_s in busy[title]), about["slots"])
        wave_s[title] = max(0.0, wall_s - work)
    return Miniature(
        study=study,
        n_synthetic=study.sweep.n_synthetic[0],
        kinds=kinds,
        wave_s=wave_s,
        warming_s=warming_s,
        trial_s=trial_s,
        start_s=max(0.0, median(beside[True]) - trial_s),
        start_cpu_s=start_cpu_s,
        vram_there=vram_there,
        **about,
    )


def _cannot(study: StudySpec, trial: TrialConfig, error: str) -> EnvironmentFault:
    """What a failed trial of the miniature says about the study."""
    batch = {"segment": "segmenter", "extract": "features", "classify": "classifier"}
    section = batch.get(trial.stage, f"arms.{getattr(trial, 'arm', '')}")
    advice = "run `medaug doctor`"
    if "memory" in error:
        sizes = f"{section}.batch_size or data.image_size"
        if trial.stage == "draw":
            sizes = f"{section}.side"
        advice = f"lower {sizes}, or give a rank a larger device"
        if trial.stage in ("generate", "classify") and study.features is not None:
            advice += f", or choose a smaller block than features.tap = {study.features.tap}"
    return EnvironmentFault(f"plan: {trial.stage} ({trial.title}) cannot run: {error}; {advice}")
