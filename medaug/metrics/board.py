"""All configurations of a study side by side: their gains, and how these vary together.

Other patients, other seeds and other draws of the training set would move every score. What other
patients would do is the bootstrap's to say, with the same patients for all configurations. Of
seeds and draws there are few, and a bootstrap of three of them cannot tell ten rows that vary
independently from ten that vary as one, so it calls the largest of ten gains too small a surprise.
What the rows have in common under a seed or a draw cancels in a gain; the rest is taken as normal
and independent between rows, with moderated variances (:mod:`medaug.metrics.replicates`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from medaug.metrics.hits import Hits, hits_of
from medaug.metrics.predictions import Predictions
from medaug.metrics.replicates import ReplicateVariance, replicate_variances
from medaug.metrics.variance import Components, components_of
from medaug.seeding import numpy_generator

FEW_DISCORDANT = 3
"""Below as many patients that tell two configurations apart, their spread says nothing."""


@dataclass(frozen=True)
class Contrast:
    """Balanced accuracy of patients of one configuration, or how much higher it is than another's.

    Raises nothing; ``components`` is None where a class has fewer than two patients, and no
    interval can then be given.
    """

    estimate: float
    components: Components | None
    n_smallest: int
    """Patients of the class that has the fewest."""
    n_discordant: int
    """Patients whose own difference is not zero in some replicate."""
    n_classes: int
    is_score: bool = False
    """Whether it is a score, between 0 and 1, and no difference of two."""

    @property
    def error(self) -> float:
        """Standard error; NaN without components."""
        return math.sqrt(self.components.variance()) if self.components else math.nan

    def reach(self, tail: float) -> float:
        """How far from the estimate a one-sided bound with this error rate lies.

        Where fewer than three patients tell the two apart it reaches at least as far as unseen
        patients of that kind could: none among n is compatible with a share of 1 - tail^(1/n),
        "three of n" (Hanley & Lippman-Hand 1983, JAMA 249).
        """
        if self.components is None:
            return math.nan
        reach = self.components.reach(tail)
        if self.n_discordant < FEW_DISCORDANT:
            reach = max(reach, self._unseen(tail))
        return reach

    def _unseen(self, tail: float) -> float:
        return (1 - tail ** (1 / self.n_smallest)) / self.n_classes

    def bounds(self, level: float = 0.95) -> tuple[float, float]:
        """Two-sided interval of this contrast alone.

        That of a score is symmetric in its log-odds, which keeps it between 0 and 1; at either end,
        and where all patients of a class were called alike, it reaches as far as "three of n". No
        difference of two is outside of -1 and 1.
        """
        tail, p = (1 - level) / 2, self.estimate
        reach = self.reach(tail)
        if not self.is_score or math.isnan(reach):
            return within(p - reach), within(p + reach)
        if min(p, 1 - p, reach) < 1e-9:
            return max(0.0, p - self._unseen(tail)), min(1.0, p + self._unseen(tail))
        odds, wide = p / (1 - p), math.exp(reach / (p * (1 - p)))
        return 1 / (1 + wide / odds), 1 / (1 + 1 / (odds * wide))


def within(gain: float) -> float:
    """A bound of a difference between two scores, which a handful of patients can put anywhere:
    from -1 to 1, and NaN as it is."""
    return gain if math.isnan(gain) else min(1.0, max(-1.0, gain))


class Board:
    """Configurations scored on the same patients, with their joint resamples.

    ``Board.of({title: table})``. Raises ValueError where two tables differ in patients or labels,
    or where their seeds or draws differ and neither has a single one. A configuration without
    chance in it needs one seed; it is compared with each seed of another.
    """

    def __init__(self, hits: Mapping[str, Hits], *, resamples: int = 2000, seed: int = 0) -> None:
        self.hits = dict(hits)
        self.titles = tuple(self.hits)
        self._resamples, self._seed = resamples, seed
        self._contrasts: dict[tuple[str, str | None], Contrast] = {}
        _require_same_units(self.hits)

    @classmethod
    def of(
        cls, tables: Mapping[str, Predictions], *, resamples: int = 2000, seed: int = 0
    ) -> Board:
        hits = {title: hits_of(table) for title, table in tables.items()}
        return cls(hits, resamples=resamples, seed=seed)

    def mean(self, title: str) -> float:
        """Balanced accuracy of patients, mean over seeds and draws."""
        return float(self.hits[title].totals.mean())

    def contrast(self, title: str, other: str | None = None) -> Contrast:
        """The score of a configuration, or its gain over another on the same patients."""
        if (title, other) not in self._contrasts:
            self._contrasts[title, other] = self._contrast(title, other)
        return self._contrasts[title, other]

    def _contrast(self, title: str, other: str | None) -> Contrast:
        ours = self.hits[title]
        influence, totals, estimate = ours.influence, ours.totals, self.mean(title)
        if other is not None:
            theirs = self.hits[other]
            _require_same_replicates(title, ours, other, theirs)
            influence = influence - theirs.influence
            totals = totals - theirs.totals
            estimate -= self.mean(other)
        differs = ours.right != self.hits[other].right if other is not None else ours.right > -1
        carriers = np.unique(ours.patient[differs.any(axis=(1, 2))])
        components = None
        if ours.smallest_stratum >= 2 and math.isfinite(estimate):
            components = components_of(influence, totals, ours.strata)
            components = self._with_replicates(components, title, other)
        return Contrast(
            estimate=estimate,
            components=components,
            n_smallest=ours.smallest_stratum,
            n_discordant=len(carriers),
            n_classes=ours.n_classes,
            is_score=other is None,
        )

    def studentised(self, title: str, other: str) -> np.ndarray:
        """What each joint resample moves a gain by, in standard errors, float64 (B,)."""
        moved = self.patient_deviations[title] - self.patient_deviations[other]
        spread = moved.std()
        components = self.contrast(title, other).components
        share = components.patients_share if components else 1.0
        by_patients = moved / spread if spread > 0 else np.zeros_like(moved)
        by_replicates = (self._chance[title] - self._chance[other]) / math.sqrt(2)
        return math.sqrt(share) * by_patients + math.sqrt(1 - share) * by_replicates

    def resampled(self, title: str) -> np.ndarray:
        """Scores of a configuration in the joint resamples, float64 (B,).

        Without what all configurations share under a seed or a draw: for comparisons only.
        """
        variance = sum(
            found[title].apart / len(getattr(self.hits[title], axis))
            for axis, found in self._replicate_variances.items()
            if title in found
        )
        by_chance = math.sqrt(variance) * self._chance[title]
        return self.mean(title) + self.patient_deviations[title] + by_chance

    @cached_property
    def patient_deviations(self) -> dict[str, np.ndarray]:
        """What the patients of each resample add to each configuration's score, (B,) by title."""
        means = [hits.right.mean(axis=(1, 2)) for hits in self.hits.values()]
        scores = (self._patient_weights @ np.stack(means, axis=1)).T
        return {
            title: moved - self.mean(title)
            for title, moved in zip(self.titles, scores, strict=True)
        }

    @cached_property
    def _chance(self) -> dict[str, np.ndarray]:
        """Standard normal draws for each configuration's replicates, (B,) by title."""
        rng = numpy_generator("board", "replicates", self._seed)
        return {title: rng.standard_normal(self._resamples) for title in self.titles}

    @cached_property
    def _replicate_variances(self) -> dict[str, dict[str, ReplicateVariance]]:
        """By axis and title."""
        across = {"seeds": 1, "draws": 0}
        return {
            axis: replicate_variances(
                {
                    title: (tuple(getattr(hits, axis).tolist()), hits.totals.mean(axis=mean_over))
                    for title, hits in self.hits.items()
                }
            )
            for axis, mean_over in across.items()
        }

    def _with_replicates(self, own: Components, title: str, other: str | None) -> Components:
        """Seeds' and draws' variances from all rows of the board instead of these alone.

        They contain the patients' interactions, which are known well and taken off, and that of
        seeds with draws, which then has no part of its own.
        """
        found = self._replicate_variances
        seed, seed_df = _between(found["seeds"], title, other)
        draw, draw_df = _between(found["draws"], title, other)
        by_seed = own.patient_seed + own.residual / own.n_draws
        by_draw = own.patient_draw + own.residual / own.n_seeds
        return replace(
            own,
            seed=max(0.0, seed - by_seed),
            draw=max(0.0, draw - by_draw),
            seed_draw=0.0,
            seed_df=seed_df,
            draw_df=draw_df,
        )

    @cached_property
    def _patient_weights(self) -> np.ndarray:
        """Weights of the units such that a resampled score is a weighted sum, (B, U).

        Patients are drawn within their class; the deviation of their counts from one is stretched
        by sqrt(n / (n - 1)), since the bootstrap's variance is too small by that square.
        """
        any_hits = next(iter(self.hits.values()))
        rng = numpy_generator("board", "patients", self._seed)
        counts = np.ones((self._resamples, len(any_hits.patients)))
        for stratum in np.unique(any_hits.strata):
            members = np.flatnonzero(any_hits.strata == stratum)
            n = len(members)
            if n > 1:
                drawn = rng.multinomial(n, np.full(n, 1 / n), size=self._resamples)
                counts[:, members] = 1 + (drawn - 1) * np.sqrt(n / (n - 1))
        weights = counts[:, any_hits.patient]
        for k in range(any_hits.n_classes):
            of_class = any_hits.label == k
            total = weights[:, of_class].sum(axis=1, keepdims=True)
            # A class that a resample left without patients keeps the weights it has.
            usable = total > 1e-9
            weights[:, of_class] = np.where(
                usable,
                weights[:, of_class] / np.where(usable, total * any_hits.n_classes, 1),
                any_hits.unit_weight[of_class],
            )
        return weights


def _between(
    found: Mapping[str, ReplicateVariance], title: str, other: str | None
) -> tuple[float, float]:
    """Variance between replicates of a score or a gain, and its degrees of freedom."""
    ours, theirs = found.get(title), found.get(other) if other is not None else None
    if ours is not None and theirs is not None:
        return ours.apart + theirs.apart, min(ours.apart_df, theirs.apart_df)
    either = ours or theirs
    return (either.own, either.own_df) if either is not None else (0.0, math.inf)


def _require_same_units(hits: Mapping[str, Hits]) -> None:
    titles = list(hits)
    for title in titles[1:]:
        first, other = hits[titles[0]], hits[title]
        ours = set(zip(first.patients[first.patient].tolist(), first.label.tolist(), strict=True))
        theirs = set(zip(other.patients[other.patient].tolist(), other.label.tolist(), strict=True))
        if odd := sorted(ours ^ theirs):
            patient, label = odd[0]
            raise ValueError(
                f"not paired: patient {patient} (label {label}) and {len(odd) - 1} others are in "
                f"only one of {titles[0]!r} and {title!r}; compare configurations on one split"
            )


def _require_same_replicates(title: str, ours: Hits, other: str, theirs: Hits) -> None:
    for axis in ("seeds", "draws"):
        mine, its = getattr(ours, axis), getattr(theirs, axis)
        if len(mine) > 1 and len(its) > 1 and not np.array_equal(mine, its):
            raise ValueError(
                f"not paired: {title!r} has the {axis} {mine.tolist()}, {other!r} {its.tolist()}"
            )
