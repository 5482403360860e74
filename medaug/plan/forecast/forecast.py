"""``medaug plan``: count the data, rehearse the study, say what all of it takes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from medaug.data.cohort import Cohort
from medaug.data.layouts import read_cohort
from medaug.data.nifti_header import Limits
from medaug.data.reader import Cut, read_rows
from medaug.data.slices import reader_processes
from medaug.data.splits import draw_patients
from medaug.data.survey import Survey, survey
from medaug.errors import UserError
from medaug.plan.draws import draws_of
from medaug.plan.forecast.costs import Estimate, estimate, stores_bytes
from medaug.plan.forecast.fit import check_fit, check_stores
from medaug.plan.forecast.pilot import pilot_components
from medaug.plan.forecast.rehearsal import PRETRAIN, SLICES, rehearse
from medaug.plan.forecast.standin import Patients, rows_of
from medaug.plan.power import Power, power_of
from medaug.plan.trials import Plan, plan_study
from medaug.plan.variants import ArmVariant, expand_arms
from medaug.results.report.row_figures import count_figured
from medaug.spec import DrawTrial, StudySpec
from medaug.storage import storage_at
from medaug.storage.temporary import temporary_folder
from medaug.sweep.display import Display
from medaug.sweep.tune.space import draw
from medaug.units import duration, size

SAMPLE = 3
"""Scans that are read to learn how long reading takes."""


@dataclass(frozen=True)
class Forecast:
    """What ``medaug plan`` found."""

    study: StudySpec
    found: Survey
    cost: Estimate
    notes: tuple[str, ...]
    """What the figures leave out, or take for granted."""
    power: Power | None = None
    """What the study could see; None where it has no rows with synthetic data to compare."""

    @property
    def budget(self) -> str:
        """What ``resources.budget_hours`` allows of it; nothing without a budget."""
        hours, wanted = self.study.resources.budget_hours, self.cost.device_hours
        if hours is None:
            return ""
        if hours >= wanted:
            return f"within its budget of {hours:g} device-hours"
        return (
            f"more than its budget of {hours:g} device-hours (resources.budget_hours): it would "
            f"stop after {hours / wanted:.0%} of them with exit code 75, and can be resumed"
        )


def forecast(
    study: StudySpec,
    display: Display,
    *,
    address: str | None = None,
    loading_s: float = 0.0,
    pilot: Path | None = None,
) -> Forecast:
    """Estimate ``study`` on the cluster at ``address`` (None: an embedded one). A run of it loads
    its libraries first, which takes ``loading_s``. ``pilot``: the folder of a run whose gains say
    how much the study's will vary.

    Nothing is written but a folder ``.plan-…`` of the miniature, gone at the end: in the study's
    storage when there is a cluster, which has to see it, else in the temporary folder.

    Raises:
        UserError: bad data or study.
        EnvironmentFault: the study cannot fit; says what would.
    """
    known = None if pilot is None else (pilot.name, pilot_components(pilot))
    with display.progress("reading headers") as progress:
        cohort = read_cohort(study.data, progress)
        found = survey(cohort, study.data, progress)
    patients = _chosen(found, study)
    if not patients:
        raise UserError(f"data.root: no usable scan ({'; '.join(found.unreadable) or 'none'})")
    rows, masks = rows_of(patients), found.with_mask == found.scans
    draws = draws_of(study)
    arms, plan = whole_plan(study, [trial for trial, _ in draws])
    pretrain_rows, pretrain_scans = _pretrain_rows(study)
    check_stores(study, stores_bytes(study, plan, rows, masks), study.storage)
    storage = study.storage
    with ExitStack() as stack:
        display.note("rehearsing the study in miniature")
        if address is None:
            storage = stack.enter_context(temporary_folder("medaug-plan-"))
        elif not storage_at(storage).nodes_see_files:
            raise UserError(
                "plan: a rehearsal on a cluster wants a folder that its nodes see, not a bucket; "
                "give --storage DIR, or leave --address away"
            )
        else:
            display.note(f"in {storage}/.plan-…, which is removed at the end")
        small = rehearse(study, arms, draws, patients, masks, storage, display, address=address)
    study = study.model_copy(update={"resources": small.study.resources})  # GPUs as there are
    outside_s = loading_s + small.finish_s + small.figures_s * count_figured(plan.trials())
    outside_s += small.scan_s * rows / small.rows
    outside_s += _reading_s(cohort, study)
    if pretrain_rows:
        outside_s += _reading_s(cohort, study) * pretrain_scans / max(1, len(cohort.scans))
    cost = estimate(plan, small, study, rows, masks, outside_s, pretrain_rows)
    check_fit(study, cost, small.nodes, small.vram_there, study.storage)
    notes = [small.gpus]
    if study.data.slice_policy == "tumour_only":
        notes.append("slices with tumour are not counted before they are read: all slices are")
    if {"rare_only", "balance"} & {way for way in study.sweep.per_class if isinstance(way, str)}:
        notes.append(
            f"sweep.per_class: generators draw {len(study.data.classes)} times as many rows as are "
            "added, as any class may get them all"
        )
    if study.sweep.stopping is not None:
        name, spec = study.sweep.stopping
        what = "trials" if spec.classifiers else "generators"
        notes.append(f"sweep.{name} will stop some {what} early: this is the upper bound")
    if getattr(study.classifier, "early_stop", None) is not None:
        notes.append("classifier.early_stop may end trials sooner: this is the upper bound")
    return Forecast(study, found, cost, tuple(notes), power_of(study, patients, plan, known))


def render(found: Forecast) -> str:
    """The forecast as lines for a terminal."""
    cost = found.cost
    classes = ", ".join(f"{n} patients {name}" for name, n in found.found.patients.items())
    lines = [f"{found.study.name}: {classes}; {cost.rows} slices", ""]
    header = ("stage", "trials", "wall-clock", "rank time", "RAM/rank", "VRAM", "disk")
    table = [header]
    for stage in cost.stages:
        table.append(
            (
                stage.stage,
                f"{stage.trials:,}",
                duration(stage.wall_s),
                duration(stage.rank_s),
                size(stage.ram_bytes),
                size(stage.vram_bytes) if stage.vram_bytes else "–",
                size(stage.disk_bytes),
            )
        )
    table.append(
        ("outside of trials", "", duration(cost.outside_s), "", "", "", size(cost.slices_bytes))
    )
    table.append(
        (
            "all",
            f"{cost.trials:,}",
            duration(cost.wall_s),
            duration(sum(stage.rank_s for stage in cost.stages)),
            size(cost.ram_bytes),
            size(cost.vram_bytes) if cost.vram_bytes else "–",
            size(cost.disk_bytes),
        )
    )
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    for row in table:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells]).rstrip())
    device = "GPU hours" if cost.gpus_per_rank else "CPU-rank hours"
    lines += [
        "",
        f"{cost.slots} trials of {cost.ranks} rank{'s' * (cost.ranks != 1)} at once; "
        f"{cost.device_hours:.2f} {device} ({cost.cpu_s / 3600:.2f} of CPU time)",
    ]
    if found.budget:
        lines.append(found.budget)
    if found.power is not None:
        lines.append(found.power.text)
    return "\n".join([*lines, *(f"note: {note}" for note in found.notes)])


def whole_plan(study: StudySpec, draws: Sequence[DrawTrial] = ()) -> tuple[list[ArmVariant], Plan]:
    """The arms to rehearse and all trials, ``draws`` among them; where a search chooses arms, the
    random ones that it might try stand for those it will."""
    axes = study.sweep
    if axes.search == "grid" or not axes.space:
        arms = expand_arms(study)
        return arms, plan_study(study, SLICES, PRETRAIN, arms, draws=draws)
    points = draw(axes.space, axes.samples, study.split.seed)
    arms = expand_arms(study, points)
    plan = plan_study(study, SLICES, PRETRAIN, arms, draws=draws)
    if axes.search == "random":
        return arms, plan
    searched = {key.partition(".")[0] for key in axes.space}
    tried = plan.only(0, axes.seeds[0], searched)
    kept = plan_study(study, SLICES, PRETRAIN, expand_arms(study, points[: axes.keep]))
    return arms, Plan.joined([tried, kept])


def _chosen(found: Survey, study: StudySpec) -> Patients:
    """(class, slices) of the patients that the study takes."""
    if study.data.max_patients is None:
        return found.slices_of
    label_of = {f"{i:06d}": label for i, (label, _) in enumerate(found.slices_of)}
    drawn = draw_patients(label_of, study.data.max_patients, study.split.seed)
    return [found.slices_of[int(name)] for name in sorted(drawn)]


def _pretrain_rows(study: StudySpec) -> tuple[int, int]:
    """(slices, volumes) of the phantom cohort that the U-Net is pre-trained on, on average."""
    pretrain = study.segmenter.pretrain if study.segmenter else None
    if pretrain is None or pretrain.phantom is None:
        return 0, 0
    low, high = pretrain.phantom.slices
    n = pretrain.phantom.patients
    return round(n * (low + high) / 2 / study.data.slice_step), n


def _reading_s(cohort: Cohort, study: StudySpec) -> float:
    """Seconds to read and store all scans, judged by a few."""
    data = study.data
    cut = Cut(data.image_size, data.slice_policy, data.slice_step, Limits(accept=data.accept))
    usable = [scan for scan in cohort.scans if scan.label is not None]
    began, read = time.perf_counter(), 0
    for scan in usable[:SAMPLE]:
        try:
            read_rows(scan.paths, scan.masks, cut)
        except Exception:  # an ingest rejects it; here it only is no measure
            continue
        read += 1
    each_s = (time.perf_counter() - began) / max(1, read)
    return each_s * len(usable) / reader_processes()
