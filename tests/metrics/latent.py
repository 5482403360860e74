"""Boards whose truth is known: patients, draws and seeds move the log-odds of every row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from medaug.metrics.hits import Hits


@dataclass(frozen=True)
class Latent:
    """A patient is called right where a sum of normal effects is above zero.

    All rows share the patients' difficulty and, under one draw, the training set's; each row has
    its own effects of patients, draws and seeds (the latter two by class, as a moved threshold
    has), and a residual for each patient, seed and draw.
    """

    patients: int = 60
    seeds: int = 3
    draws: int = 5
    signal: float = 0.8
    patient: float = 1.0
    row_patient: float = 0.4
    draw: float = 0.2
    row_draw: float = 0.2
    seed: float = 0.05
    residual: float = 0.5
    restless: float = 1.0
    """How many times as much chance every other row has in its seeds and draws."""

    @property
    def spread(self) -> float:
        parts = (self.patient, self.row_patient, self.draw, self.row_draw, self.seed, self.residual)
        return math.sqrt(sum(part**2 for part in parts))

    def accuracy(self, more: float = 0.0) -> float:
        """Expected balanced accuracy of a row whose signal is higher by ``more``."""
        return float(norm.cdf((self.signal + more) / self.spread))

    def signal_for(self, gain: float) -> float:
        """How much more signal makes a row's balanced accuracy higher by ``gain``."""
        return float(norm.ppf(self.accuracy() + gain)) * self.spread - self.signal

    def hits(
        self, rng: np.random.Generator, rows: Sequence[str], more: Mapping[str, float] | None = None
    ) -> dict[str, Hits]:
        """One study: the hits of each row, ``more`` signal for some of them."""
        p, s, d = self.patients, self.seeds, self.draws
        label = np.arange(p) % 2
        shared = rng.normal(0, self.patient, p)[:, None, None]
        shared = shared + rng.normal(0, self.draw, (2, 1, d))[label]
        names = np.char.add("p-", np.char.zfill(np.arange(p).astype(str), 5))
        found = {}
        for number, row in enumerate(rows):
            times = self.restless if number % 2 == 0 else 1.0
            odds = shared + self.signal + (more or {}).get(row, 0.0)
            odds = odds + rng.normal(0, self.row_patient, (p, 1, 1))
            odds = odds + rng.normal(0, times * self.row_draw, (2, 1, d))[label]
            odds = odds + rng.normal(0, times * self.seed, (2, s, 1))[label]
            right = (odds + rng.normal(0, self.residual, (p, s, d)) > 0).astype(float)
            found[row] = Hits(
                patients=names,
                strata=label,
                patient=np.arange(p),
                label=label,
                seeds=np.arange(s),
                draws=np.arange(d),
                right=right,
                n_classes=2,
            )
        return found
