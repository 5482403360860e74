"""The smallest gain that a study of a given size would show in eight of ten repetitions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from medaug.metrics.variance import Components
from medaug.seeding import numpy_generator

SIMULATED = 20_000
DRAWS = (3, 4, 6)
"""Each draw costs as much as the first."""


def smallest_visible_gain(
    components: Components,
    *,
    n_patients: int | None = None,
    n_seeds: int | None = None,
    n_draws: int | None = None,
    rows: int = 1,
    controls: int = 1,
    power: float = 0.8,
    level: float = 0.95,
) -> float:
    """Gain in balanced accuracy of which a board would say ``gain`` with this probability.

    ``components``: those of one row's gain over one control, of a rehearsal
    (:meth:`medaug.metrics.board.Board.contrast`) or assumed (:func:`assumed_components`).
    ``n_patients``: patients that are scored, over all folds, in the same proportions of classes;
    sizes that are not given are the components' own. ``rows``: synthetic rows of the board, whose
    bounds hold at once. ``controls``: how many that are equally good the row has to beat.

    Scores are taken as normal and as varying equally, so two gains over one control correlate by
    a half; the worst case, a single row with an effect among rows without.
    """
    sizes = replace(
        components,
        n_patients=n_patients or components.n_patients,
        n_seeds=n_seeds or components.n_seeds,
        n_draws=n_draws or components.n_draws,
    )
    grown = sizes.n_patients / components.n_patients
    of_patients = ("patient", "patient_seed", "patient_draw", "residual")
    sizes = replace(
        sizes,
        **{name: getattr(components, name) / grown for name in of_patients},
        patient_df=components.patient_df * grown,
        seed_df=_scaled(components.seed_df, components.n_seeds, sizes.n_seeds),
        draw_df=_scaled(components.draw_df, components.n_draws, sizes.n_draws),
    )
    rng = numpy_generator("power", rows, controls)
    own = rng.standard_normal((SIMULATED, rows)) / math.sqrt(2)
    theirs = rng.standard_normal((SIMULATED, controls)) / math.sqrt(2)
    largest = np.quantile((own - theirs[:, :1]).max(axis=1), level)
    tail = float(np.mean(own[:, 0] - theirs[:, 0] > largest)) if rows > 1 else 1 - level
    shortfall = np.quantile(theirs.max(axis=1) - own[:, 0], power)
    return sizes.reach(max(tail, 1 / SIMULATED)) + float(shortfall) * math.sqrt(sizes.variance())


def draws_that_pay(
    patients: Sequence[int], *, n_seeds: int, rows: int, controls: int
) -> tuple[int, float]:
    """How many draws of a small training set to take, and the smallest gain that is then seen.

    The fewest of :data:`DRAWS` with a smallest visible gain at most a tenth above that of the most.
    ``patients``: those that are scored, by class; nothing has been measured yet.
    """
    gains = [
        smallest_visible_gain(
            assumed_components(patients, n_seeds=n_seeds, n_draws=n), rows=rows, controls=controls
        )
        for n in DRAWS
    ]
    best = next(i for i, gain in enumerate(gains) if gain <= 1.1 * gains[-1])
    return DRAWS[best], gains[best]


def assumed_components(
    patients: Sequence[int],
    *,
    n_seeds: int = 1,
    n_draws: int = 1,
    accuracy: float = 0.75,
    correlation: float = 0.6,
    stable: float = 0.3,
    seed_sd: float = 0.015,
    draw_sd: float = 0.015,
    pooled: int = 6,
) -> Components:
    """Components of a gain before anything has been measured.

    ``patients``: those that are scored, by class. ``accuracy``: share of them that is right.
    ``correlation``: of two rows' being right, over patients, in one replicate. ``stable``: the
    share of their differences that another seed or draw would show again. ``seed_sd`` and
    ``draw_sd``: standard deviations of one row's balanced accuracy between seeds and between
    draws, beyond what all rows share. ``pooled``: rows of the board that these are told from
    together (:mod:`medaug.metrics.replicates`).

    The defaults are guesses, of the size of what the demo's networks and linear models on chest
    X-rays showed (two rows differ on .14 to .31 of the patients, a fifth to a third of it stable,
    one row's seeds by .00 to .03); a rehearsal on the study's own data knows better.
    """
    differs = 2 * accuracy * (1 - accuracy) * (1 - correlation)
    by_patients = differs * sum(1 / n for n in patients) / len(patients) ** 2
    repeated = n_seeds > 1 or n_draws > 1
    return Components(
        patient=by_patients * (stable if repeated else 1.0),
        seed=2 * seed_sd**2 if n_seeds > 1 else 0.0,
        draw=2 * draw_sd**2 if n_draws > 1 else 0.0,
        patient_seed=0.0,
        patient_draw=0.0,
        seed_draw=0.0,
        residual=by_patients * (1 - stable) if repeated else 0.0,
        n_patients=sum(patients),
        n_seeds=n_seeds,
        n_draws=n_draws,
        patient_df=sum(patients) - len(patients),
        seed_df=pooled * (n_seeds - 1),
        draw_df=pooled * (n_draws - 1),
    )


def with_replicates(measured: Components, *, n_seeds: int, n_draws: int) -> Components:
    """``measured`` with assumed parts for the replicates of which it had one only: a single seed
    or draw does not tell how much they differ."""
    assumed = assumed_components([2, 2], n_seeds=n_seeds, n_draws=n_draws)
    if measured.n_seeds == 1 and n_seeds > 1:
        measured = replace(measured, seed=assumed.seed, n_seeds=n_seeds, seed_df=assumed.seed_df)
    if measured.n_draws == 1 and n_draws > 1:
        measured = replace(measured, draw=assumed.draw, n_draws=n_draws, draw_df=assumed.draw_df)
    return measured


def _scaled(df: float, before: int, now: int) -> float:
    """Degrees of freedom that come from so many replicates, at another number of them."""
    return df * (now - 1) / (before - 1) if before > 1 else df
