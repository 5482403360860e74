"""Search spaces: from ``sweep.space`` of a study to Ray's domains, random draws and Optuna."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from medaug.errors import UserError
from medaug.seeding import seed_of

if TYPE_CHECKING:
    from ray.tune.search.sample import Domain

Space = Mapping[str, Mapping[str, Any]]
Point = dict[str, Any]

_FORMS = "{choice: [...]}, {uniform: [a, b]}, {loguniform: [a, b]} or {randint: [a, b]}"


def domains(space: Space) -> dict[str, Domain]:
    """Dotted key -> Ray domain. Both ends of ``randint: [a, b]`` are in it.

    Raises:
        UserError: naming the key whose domain is none of the four forms, or is empty.
    """
    return {key: _domain(f"sweep.space.{key}", form) for key, form in space.items()}


def draw(space: Space, samples: int, seed: int = 0) -> list[Point]:
    """Up to ``samples`` different random points; the same ones for the same arguments.

    Each is a function of the seed and its number alone, so more samples add to the former ones.
    """
    axes = domains(space)
    points: dict[str, Point] = {}
    for number in range(samples):
        random = np.random.RandomState(seed_of(seed, "search", number) % 2**32)
        point = {key: _plain(axis.sample(random_state=random)) for key, axis in axes.items()}
        points.setdefault(json.dumps(point, sort_keys=True), point)
    return list(points.values())


def search(
    space: Space,
    evaluate: Callable[[Sequence[Point]], Sequence[float | None]],
    *,
    samples: int,
    mode: Literal["min", "max"],
    batch: int = 4,
    seed: int = 0,
) -> list[tuple[Point, float | None]]:
    """Let Optuna (TPE, through Ray's OptunaSearch) choose ``samples`` points; best first.

    ``evaluate`` runs a batch of points, usually as one wave of trials, and returns the objective
    of each, or None for a point that has none (its trial failed or diverged). The search asks for
    a whole batch before it learns of any, so its course depends on nothing but the arguments: a
    resumed search asks for the same points again and finds their trials done.
    """
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constant_liar is "experimental" since 2021
        sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
    axes = OptunaSearch.convert_search_space(domains(space))
    searcher = OptunaSearch(axes, metric="objective", mode=mode, sampler=sampler)
    tried: list[tuple[Point, float | None]] = []
    while len(tried) < samples:
        names = [f"{len(tried) + i}" for i in range(min(batch, samples - len(tried)))]
        points = [_flat(searcher.suggest(name)) for name in names]
        objectives = evaluate(points)
        for name, objective in zip(names, objectives, strict=True):
            if objective is None:
                searcher.on_trial_complete(name, error=True)
            else:
                searcher.on_trial_complete(name, {"objective": objective})
        tried += zip(points, objectives, strict=True)
    sign = 1.0 if mode == "min" else -1.0
    return sorted(tried, key=lambda pair: float("inf") if pair[1] is None else sign * pair[1])


def _domain(where: str, form: Mapping[str, Any]) -> Domain:
    from ray import tune

    if len(form) != 1:
        raise UserError(f"{where}: has {len(form)} keys; write one of {_FORMS}")
    ((kind, values),) = form.items()
    if kind == "choice" and isinstance(values, Sequence) and values:
        return tune.choice(list(values))
    if kind in ("uniform", "loguniform", "randint"):
        try:
            low, high = values
            empty = not low < high or (kind == "loguniform" and low <= 0)
        except (TypeError, ValueError):
            raise UserError(f"{where}.{kind}: {values!r} is not [a, b]") from None
        if empty:
            bound = "0 < a < b" if kind == "loguniform" else "a < b"
            raise UserError(f"{where}.{kind}: {values!r} is empty; write [a, b] with {bound}")
        if kind == "randint":
            return tune.randint(int(low), int(high) + 1)
        return getattr(tune, kind)(float(low), float(high))
    raise UserError(f"{where}: no such domain as {kind!r}; write one of {_FORMS}")


def _plain(value: Any) -> Any:
    """A drawn number as Python's own type, which JSON and the configuration types know."""
    return value.item() if isinstance(value, np.generic) else value


def _flat(point: Mapping[str, Any] | None) -> Point:
    assert point is not None, "OptunaSearch never runs out of points"
    return {key: _plain(value) for key, value in point.items()}
