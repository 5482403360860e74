"""Whether ending trials early can do anything in a study, and rightly: checked before it runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from medaug.errors import UserError
from medaug.spec.axes import grid_points
from medaug.spec.classifier import NetworkSpec
from medaug.spec.study import ArmSpec, StudySpec
from medaug.spec.validation import Sources, nearest, where

COMPARABLE = {"val/fd": "min"}
"""What every trained generator reports and trials may be ended by, and which is better; their
losses are games against different critics."""


def check_metric(study: StudySpec, sources: Sources) -> None:
    """Check what generators are ended by, and whose patients classifiers are: the part that needs
    to know no arm.

    Raises:
        UserError: no generator reports the metric, the worst ones would go on, or the patients who
            are scored would end classifiers.
    """
    if study.sweep.stopping is None:
        return
    name, spec = study.sweep.stopping
    here = "sweep", name
    if spec.metric not in COMPARABLE:
        raise UserError(
            f"{where((*here, 'metric'), sources)}: no generator reports '{spec.metric}' that "
            f"others' can be compared with{nearest(spec.metric, COMPARABLE)}"
        )
    if spec.mode != COMPARABLE[spec.metric]:
        raise UserError(
            f"{where((*here, 'mode'), sources)}: {spec.mode} would keep the worst generators; "
            f"the best {spec.metric} is its {COMPARABLE[spec.metric]}"
        )
    if spec.classifiers and not study.split.val_fraction:
        raise UserError(
            f"{where((*here, 'classifiers'), sources)}: without validation patients the "
            "scored ones would end classifiers; give split.val_fraction, or leave it out"
        )


def check_grace(study: StudySpec, given: Mapping[str, Mapping[str, Any]], sources: Sources) -> None:
    """Check that some trial can be ended before its end; ``given`` holds the keys of each arm as
    they were written.

    Raises:
        UserError: nothing is trained in epochs, or nothing is measured between the grace period and
            its last epoch.
    """
    if study.sweep.stopping is None:
        return
    name, spec = study.sweep.stopping
    here = "sweep", name
    lengths = {f"arms.{arm}": length for arm, length in _lengths(study, given)}
    if spec.classifiers:
        lengths |= {
            title: (judge.epochs, 1)
            for title, judge in study.judges.items()
            if isinstance(judge, NetworkSpec)
        }
    if not lengths:
        raise UserError(
            f"{where(here, sources)}: no arm of this study is trained in epochs, so there is "
            f"nothing to stop early; take {name} out, or add an arm such as acgan"
        )
    if not any(_first_look(spec.grace_period, every) < n for n, every in lengths.values()):
        place, (epochs, every) = max(lengths.items(), key=lambda item: item[1][0])
        lower = f" or {place}.eval_every" if place.startswith("arms.") else ""
        who = place.removeprefix("arms.")
        raise UserError(
            f"{where((*here, 'grace_period'), sources)}: {spec.grace_period} epochs of grace stop "
            f"no generator before its end: {who} trains {epochs} epochs and is measured every "
            f"{every}; lower grace_period{lower}"
        )


def _lengths(
    study: StudySpec, given: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[str, tuple[int, int]]]:
    """(arm, (epochs, epochs between measurements)) of the longest training of each arm that has
    any. What a search may draw has no end that is known."""
    for name, spec in study.arms.items():
        if "eval_every" not in type(spec).model_fields:
            continue
        if f"{name}.epochs" in study.sweep.space:
            yield name, (2**62, 1)
            continue
        variants = [_with(spec, given[name], point) for point in grid_points(study.sweep, name)]
        longest: Any = max(variants, key=lambda variant: variant.epochs)
        yield name, (longest.epochs, longest.eval_every)


def _with(spec: ArmSpec, given: Mapping[str, Any], point: Mapping[str, Any]) -> Any:
    return type(spec).model_validate({**given, **point}) if point else spec


def _first_look(grace: int, every: int) -> int:
    """The first measured epoch after so many epochs of grace."""
    return math.ceil(grace / every) * every
