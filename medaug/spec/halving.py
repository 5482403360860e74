"""Whether successive halving can do anything in a study: checked with it, before anything runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from medaug.errors import UserError
from medaug.spec.axes import grid_points
from medaug.spec.study import ArmSpec, StudySpec
from medaug.spec.validation import KeyPath, Sources, nearest, where

COMPARABLE = {"val/fd": "min"}
"""What every trained generator reports and halving may rank, and which is better; their losses are
games against different critics."""
_HERE: KeyPath = ("sweep", "asha")


def check_metric(study: StudySpec, sources: Sources) -> None:
    """Check what ``sweep.asha`` ranks by: the part that needs to know no arm.

    Raises:
        UserError: no generator reports the metric, or the worst ones would go on.
    """
    asha = study.sweep.asha
    if asha is None:
        return
    if asha.metric not in COMPARABLE:
        raise UserError(
            f"{where((*_HERE, 'metric'), sources)}: no generator reports '{asha.metric}' that "
            f"others' can be compared with{nearest(asha.metric, COMPARABLE)}"
        )
    if asha.mode != COMPARABLE[asha.metric]:
        raise UserError(
            f"{where((*_HERE, 'mode'), sources)}: {asha.mode} would keep the worst generators; "
            f"the best {asha.metric} is its {COMPARABLE[asha.metric]}"
        )


def check_grace(study: StudySpec, given: Mapping[str, Mapping[str, Any]], sources: Sources) -> None:
    """Check that some generator can be stopped before its end; ``given`` holds the keys of each
    arm as they were written.

    Raises:
        UserError: no arm is trained in epochs, or none is measured between the grace period and
            its last epoch.
    """
    asha = study.sweep.asha
    if asha is None:
        return
    lengths = dict(_lengths(study, given))
    if not lengths:
        raise UserError(
            f"{where(_HERE, sources)}: no arm of this study is trained in epochs, so there is "
            "nothing to stop early; take asha out, or add an arm such as acgan"
        )
    if not any(_first_look(asha.grace_period, every) < n for n, every in lengths.values()):
        arm, (epochs, every) = max(lengths.items(), key=lambda item: item[1][0])
        raise UserError(
            f"{where((*_HERE, 'grace_period'), sources)}: {asha.grace_period} epochs of grace stop "
            f"no generator before its end: {arm} trains {epochs} epochs and is measured every "
            f"{every}; lower grace_period or arms.{arm}.eval_every"
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
