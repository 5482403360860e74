"""Where the variance of a score comes from: patients, seeds, draws, and what two of them share.

A study would come out differently with other patients, with other seeds and with other draws of a
small training set. The three are crossed, every patient is scored under every seed and draw, so
the variance of a mean over all of them is a sum of seven parts (random effects of a crossed
design; Searle, Casella & McCulloch 1992, "Variance components", ch. 4):

    V = P + S/s + D/d + PS/s + PD/d + SD/(sd) + PSD/(sd)

with s seeds and d draws, and P, PS, PD, PSD in proportion to 1 / patients. They are estimated by
equating mean squares with their expectations. A bootstrap that draws patients, seeds and draws at
once and multiplies their counts (Owen 2007) estimates 3 PS, 3 PD, 3 SD and 7 PSD instead of one of
each, which for three seeds easily makes intervals half as wide again as they need be.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit


@dataclass(frozen=True)
class Components:
    """Variance components of a score over ``n_patients`` patients; none is negative.

    The patients' parts are those of the whole score, already divided by the number of patients.
    """

    patient: float
    seed: float
    draw: float
    patient_seed: float
    patient_draw: float
    seed_draw: float
    residual: float
    """Patient x seed x draw."""
    n_patients: int
    n_seeds: int
    n_draws: int
    patient_df: float
    """Degrees of freedom of the patients' part; fewer where few patients carry it."""
    seed_df: float
    draw_df: float

    def variance(
        self,
        n_patients: float | None = None,
        n_seeds: float | None = None,
        n_draws: float | None = None,
    ) -> float:
        """Variance of the score, here or in a study of other sizes."""
        s, d = n_seeds or self.n_seeds, n_draws or self.n_draws
        of_patients, rest = self._parts(s, d)
        return of_patients * self.n_patients / (n_patients or self.n_patients) + rest

    def patients_for(self, variance: float) -> float:
        """Patients at which the variance would be this; infinite where they alone cannot."""
        of_patients, rest = self._parts(self.n_seeds, self.n_draws)
        return self.n_patients * of_patients / (variance - rest) if variance > rest else np.inf

    def draws_for(self, variance: float) -> float:
        """Draws at which the variance would be this; infinite where they alone cannot."""
        s = self.n_seeds
        per_draw = self.draw + self.patient_draw + (self.seed_draw + self.residual) / s
        return self._replicates_for(variance, per_draw, self.n_draws)

    def seeds_for(self, variance: float) -> float:
        """Seeds at which the variance would be this; infinite where they alone cannot."""
        d = self.n_draws
        per_seed = self.seed + self.patient_seed + (self.seed_draw + self.residual) / d
        return self._replicates_for(variance, per_seed, self.n_seeds)

    def reach(self, tail: float) -> float:
        """How far from the score a one-sided bound with this error rate lies.

        The parts' own reaches by Student's t, added in squares (Graybill & Wang 1980, JASA 75).
        Joining the degrees of freedom first (Satterthwaite) trusts three seeds that happen to
        agree.
        """
        s, d = self.n_seeds, self.n_draws
        of_patients, _ = self._parts(s, d)
        parts = (
            (of_patients, self.patient_df),
            (self.seed / s, self.seed_df),
            (self.draw / d, self.draw_df),
            (self.seed_draw / (s * d), min(self.seed_df, self.draw_df)),
        )
        squares = (part * float(stdtrit(df, tail)) ** 2 for part, df in parts if part > 0)
        return math.sqrt(sum(squares))

    @property
    def patients_share(self) -> float:
        """Share of the variance that more patients would lower."""
        of_patients, rest = self._parts(self.n_seeds, self.n_draws)
        return of_patients / (of_patients + rest) if of_patients + rest else 1.0

    def _parts(self, s: float, d: float) -> tuple[float, float]:
        of_patients = (
            self.patient + self.patient_seed / s + self.patient_draw / d + self.residual / (s * d)
        )
        return of_patients, self.seed / s + self.draw / d + self.seed_draw / (s * d)

    def _replicates_for(self, variance: float, each: float, now: int) -> float:
        rest = self.variance() - each / now
        return each / (variance - rest) if variance > rest else np.inf


def components_of(influence: np.ndarray, totals: np.ndarray, strata: np.ndarray) -> Components:
    """Components of the mean of ``totals`` (S, D), to which patients add ``influence`` (P, S, D).

    ``strata`` int (P,): the classes that patients are drawn from, each of at least two. An axis
    of length one has no part of its own: the study then speaks of that seed or that draw.
    """
    _, s, d = influence.shape
    squares, patient_df = _patient_squares(influence, strata)
    residual = squares["psd"]
    patient_seed = squares["ps"] - residual / d
    patient_draw = squares["pd"] - residual / s
    patient = squares["p"] - patient_seed / s - patient_draw / d - residual / (s * d)
    seed_draw = seed = draw = 0.0
    by_seed, by_draw = totals.mean(axis=1), totals.mean(axis=0)
    if s > 1 and d > 1:
        left = totals - by_seed[:, None] - by_draw + totals.mean()
        seed_draw = (left**2).sum() / ((s - 1) * (d - 1)) - residual
    if s > 1:
        seed = by_seed.var(ddof=1) - seed_draw / d - patient_seed - residual / d
    if d > 1:
        draw = by_draw.var(ddof=1) - seed_draw / s - patient_draw - residual / s
    parts = {
        "patient": patient,
        "seed": seed,
        "draw": draw,
        "patient_seed": patient_seed,
        "patient_draw": patient_draw,
        "seed_draw": seed_draw,
        "residual": residual,
    }
    return Components(
        **{name: max(0.0, float(part)) for name, part in parts.items()},
        n_patients=len(influence),
        n_seeds=s,
        n_draws=d,
        patient_df=patient_df,
        seed_df=s - 1,
        draw_df=d - 1,
    )


def _patient_squares(influence: np.ndarray, strata: np.ndarray) -> tuple[dict[str, float], float]:
    """Mean squares of patients and of their interactions, and the first one's degrees of freedom.

    The variance of a variance of n values is (kurtosis - (n - 3) / (n - 1)) / n of its square: a
    difference that only two of fifty patients carry is known as badly as from three patients.
    """
    _, s, d = influence.shape
    squares, spread = dict.fromkeys(("p", "ps", "pd", "psd"), 0.0), 0.0
    for stratum in np.unique(strata):
        z = influence[strata == stratum]
        n = len(z)
        z = z - z.mean(axis=0)
        scale = n / (n - 1)
        mean = z.mean(axis=(1, 2))
        own = scale * float(mean @ mean)
        squares["p"] += own
        if own > 0:
            kurtosis = n * float((mean**4).sum()) / float(mean @ mean) ** 2
            spread += own**2 * max((kurtosis - (n - 3) / (n - 1)) / n, 2 / (n - 1))
        by_seed = z.mean(axis=2) - mean[:, None]
        by_draw = z.mean(axis=1) - mean[:, None]
        if s > 1:
            squares["ps"] += scale * float((by_seed**2).sum()) / (s - 1)
        if d > 1:
            squares["pd"] += scale * float((by_draw**2).sum()) / (d - 1)
        if s > 1 and d > 1:
            left = z - mean[:, None, None] - by_seed[:, :, None] - by_draw[:, None, :]
            squares["psd"] += scale * float((left**2).sum()) / ((s - 1) * (d - 1))
    df = 2 * squares["p"] ** 2 / spread if spread else len(strata) - len(np.unique(strata))
    return squares, float(df)
