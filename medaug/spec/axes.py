"""The axes of a sweep: what they are about, and every point of a grid.

They are checked with the study, not when the sweep reaches them.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from medaug.errors import UserError
from medaug.spec.study import ArmSpec, StudySpec
from medaug.spec.sweep import SweepSpec
from medaug.spec.validation import Sources, nearest, validated, where

SPACE_FORMS = ("choice", "uniform", "loguniform", "randint")


def inside(arm: str, point: Mapping[str, Any]) -> dict[str, Any]:
    """The part of ``point`` (axis -> value) that is about ``arm``, without its name."""
    prefix = f"{arm}."
    return {k.removeprefix(prefix): v for k, v in point.items() if k.startswith(prefix)}


def grid_points(sweep: SweepSpec, arm: str) -> Iterator[dict[str, Any]]:
    """Every combination (key -> value) of the grid's axes of ``arm``; tied ones move together."""
    axes = _grid_axes(sweep, arm)
    for combination in itertools.product(*axes):
        yield dict(itertools.chain.from_iterable(combination))


def check_axes(study: StudySpec, given: Mapping[str, Mapping[str, Any]], sources: Sources) -> None:
    """Check every axis of ``study``; ``given`` holds the keys of each arm as they were written.

    Raises:
        UserError: an axis names no arm or key, a value does not suit it, tied axes differ in
            length, or the grid holds more points than ``sweep.max_trials``.
    """
    sweep = study.sweep
    for axis in sweep.grid:
        _check_name(study.arms, axis, ("sweep", "grid", axis), sources)
    for axis, form in sweep.space.items():
        here = ("sweep", "space", axis)
        _check_name(study.arms, axis, here, sources)
        if len(form) != 1 or next(iter(form)) not in SPACE_FORMS:
            raise UserError(
                f"{where(here, sources)}: write one of {{choice: [...]}}, {{uniform: [a, b]}}, "
                "{loguniform: [a, b]}, {randint: [a, b]}"
            )
    for number, group in enumerate(sweep.tie):
        _check_tie(sweep, number, group, sources)
    for arm, spec in study.arms.items():
        size = math.prod(len(axis) for axis in _grid_axes(sweep, arm))
        if size > sweep.max_trials:
            raise UserError(
                f"{where(('sweep', 'grid'), sources)}: {size} points of arm {arm}, more than "
                f"sweep.max_trials = {sweep.max_trials}; shorten an axis or raise the limit"
            )
        for point in grid_points(sweep, arm) if inside(arm, sweep.grid) else ():
            _try(type(spec), arm, given[arm], point, sweep, sources)


def _grid_axes(sweep: SweepSpec, arm: str) -> list[list[tuple[tuple[str, Any], ...]]]:
    """One entry per axis or group of tied axes: its (key, value) pairs, step by step."""
    grid = inside(arm, sweep.grid)
    ties = [tuple(inside(arm, dict.fromkeys(group))) for group in sweep.tie]
    tied = {key for group in ties for key in group}
    groups = [group for group in ties if group] + [(key,) for key in grid if key not in tied]
    return [
        [
            tuple(zip(group, values, strict=True))
            for values in zip(*(grid[key] for key in group), strict=True)
        ]
        for group in groups
    ]


def _check_name(
    arms: Mapping[str, ArmSpec], axis: str, path: tuple[str, ...], sources: Sources
) -> None:
    arm, _, key = axis.partition(".")
    if arm not in arms:
        raise UserError(
            f"{where(path, sources)}: an axis is <arm>.<key>, and '{arm}' is no arm of this study"
            f"{nearest(arm, arms)}"
        )
    known = type(arms[arm]).model_fields
    if key not in known:
        raise UserError(
            f"{where(path, sources)}: arm {arm} ({arms[arm].kind}) has no key '{key}'"
            f"{nearest(key, known)}"
        )


def _check_tie(sweep: SweepSpec, number: int, group: tuple[str, ...], sources: Sources) -> None:
    here = where(("sweep", "tie", str(number)), sources)
    for axis in group:
        if axis not in sweep.grid:
            raise UserError(f"{here}: '{axis}' is no axis of sweep.grid{nearest(axis, sweep.grid)}")
    lengths = {axis: len(sweep.grid[axis]) for axis in group}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{axis} has {n}" for axis, n in lengths.items())
        raise UserError(f"{here}: tied axes want equally many values, but {shown}")


def _try(
    spec: type[ArmSpec],
    arm: str,
    given: Mapping[str, Any],
    point: Mapping[str, Any],
    sweep: SweepSpec,
    sources: Sources,
) -> None:
    """Build the arm at ``point``; a mistake is told at the axis that it is about."""
    try:
        validated(spec, {**given, **point})
    except UserError as error:
        what = str(error).removeprefix("study: ")
        words = re.findall(r"\w+", what)
        key = next((key for key in point if key in words), next(iter(point)))
        number = sweep.grid[f"{arm}.{key}"].index(point[key])
        place = where(("sweep", "grid", f"{arm}.{key}", str(number)), sources)
        raise UserError(f"{place}: {what.removeprefix(f'{key}: ')}") from None
