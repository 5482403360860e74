"""A leaderboard and its rows, as everything that shows them reads them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from medaug.metrics.conclusion import Conclusion
from medaug.metrics.exchange import ExchangeRate
from medaug.spec.base import signature
from medaug.spec.per_class import UNIFORM
from medaug.spec.trial import configuration_title

RECALL_FLOOR = 0.2
"""A class recall below this is called a collapse onto the other class."""

NO_GAIN = "no demonstrated gain"
CHANCE = "not better than chance"
COLLAPSE = "one-class collapse"
REFERENCE = "reference"
POSITIVE = "positive control"
WEAKER = "weaker than a linear model"
LEAK = "near-copies across the split"
UNKNOWN = "lineage unknown"
BELOW_GAUSSIAN = "worse than a Gaussian"
MODE_COLLAPSE = "mode collapse"
UNRANKABLE = "not rankable: "
UNCHECKED = "not compared with "
"""Begins the flag of a synthetic row beside which cheap controls are missing."""


@dataclass(frozen=True)
class Row:
    """One configuration: an arm at one point of its grid, with one number of added rows and one
    classifier. Scores are of patients (:mod:`medaug.metrics.hits`)."""

    arm: str
    kind: str
    synthetic: bool
    point: Mapping[str, Any]
    """Values of the arm's grid axes, for example ``{"ngf": 64, "ndf": 64}``."""
    n_synthetic: int
    train_rows: int | None
    replicates: int
    expected: int
    patients: int
    mean: float
    """Balanced accuracy of patients, mean over replicates; NaN without any."""
    low: float
    high: float
    """95 % interval, over patients, seeds and draws."""
    per_class: str = UNIFORM
    """How the added rows are shared out among the classes, as ``sweep.per_class`` says it."""
    classifier: str = ""
    """What the study calls the classifier; nothing where it has but one."""
    linear: bool = False
    """Whether this is the plain linear model that every study is compared with."""
    control: bool = False
    """Whether the protocol added this arm, not the study."""
    below_gaussian: bool = False
    """Whether its network's rows teach a classifier less than those of a Gaussian fitted on the
    same rows do."""
    collapsed: str = ""
    """How many of its generators made rows without the real ones' variety: "2 of 12"."""
    unknown_lineage: bool = False
    """Whether nobody says what its generator has seen."""
    draws: int = 1
    """Draws of the training set that are planned."""
    real_rows: int | None = None
    """Real rows that were trained on, mean over the folds; held-back ones that the positive
    control adds are included."""
    gain: float = math.nan
    gain_low: float = math.nan
    gain_high: float = math.nan
    """Of a row with synthetic data: one-sided 95 % bounds that hold for all such rows of the board
    at once. Of the positive control: its own one-sided bounds. Of others: this row's own 95 %
    interval."""
    reference: str | None = None
    """The configuration that the gain is measured against: the best without synthetic data, or of
    the positive control its own classifier without added rows."""
    conclusion: Conclusion | None = None
    """How the comparison ends, of a row with synthetic data and of the positive control."""
    worth: ExchangeRate | None = None
    """What the gain is worth in real training rows."""
    weaker_by: tuple[str, float, float, float] | None = None
    """The best linear configuration and its gain over this row with a 95 % interval."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """``balanced_accuracy`` and ``recall/<class>`` of patients; all others, as
    ``slice_balanced_accuracy``, of slices."""
    quality: Mapping[str, float] = field(default_factory=dict)
    device_hours: float = 0.0
    """Classifiers and generators, over all replicates."""
    flags: tuple[str, ...] = ()
    rank: int | None = None
    trials: tuple[str, ...] = ()
    """Keys of the classifiers' trials, finished or not."""

    @property
    def title(self) -> str:
        """For people: ``acgan ngf=64 ndf=64 +1200 by probe``."""
        return configuration_title(
            self.arm,
            self.point,
            self.n_synthetic,
            self.train_rows,
            self.classifier,
            per_class=self.per_class,
        )

    @property
    def labels(self) -> dict[str, Any]:
        """What the configuration is, by name."""
        labels = {"arm": self.arm, "kind": self.kind, "n_synthetic": self.n_synthetic, **self.point}
        labels |= {} if self.per_class == UNIFORM else {"per_class": self.per_class}
        labels |= {} if self.train_rows is None else {"train_rows": self.train_rows}
        return labels | ({"classifier": self.classifier} if self.classifier else {})

    @property
    def key(self) -> str:
        """Twelve hex digits: the signature of :attr:`labels`."""
        return signature(self.labels)

    @property
    def added(self) -> str:
        """What is added: ``+300``, or ``+300 rare_only``."""
        return configuration_title("", {}, self.n_synthetic, per_class=self.per_class).strip()

    @property
    def ending(self) -> str:
        """The conclusion in words; nothing where there is none."""
        return self.conclusion.text if self.conclusion else ""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; numbers that do not exist are null."""
        body = asdict(self) | {"title": self.title, "flags": list(self.flags)}
        if self.conclusion is not None:
            body["conclusion"]["text"] = self.conclusion.text
        if self.worth is not None:
            body["worth"]["text"] = self.worth.text
        if self.weaker_by is not None:
            body["weaker_by"] = dict(
                zip(("title", "gain", "low", "high"), self.weaker_by, strict=True)
            )
        return without_nan(body)


@dataclass(frozen=True)
class Leaderboard:
    """All rows of a run by training-set size, the largest first; of each best first, then what is
    not rankable. Ranks are among rows of one size."""

    run: str
    protocol: str
    classes: tuple[str, ...]
    rows: tuple[Row, ...]
    tried: int
    """Configurations scored: the more were tried, the less the best one's lead means."""
    unfinished: int = 0
    margin: float = 0.02
    """The gain that the study calls too small to matter."""
    external: tuple[Mapping[str, Any], ...] = ()
    """The record of each other cohort that was scored (:mod:`medaug.score`), the oldest first."""
    subgroups: tuple[Mapping[str, Any], ...] = ()
    """Scores of the patients who share a covariate (:mod:`medaug.results.subgroups`)."""
    remarks: tuple[str, ...] = ()
    """What nothing vouches for, as whoever checked the run was told; a line each."""

    @property
    def reference(self) -> Row | None:
        """The best configuration without synthetic data: of several (one for each training-set
        size), that of the most data."""
        found = [row for row in self.rows if REFERENCE in row.flags]
        controls = [
            row
            for row in self.rows
            if not row.synthetic and row.replicates and not _added_real(row)
        ]
        by_mean = max(controls, key=lambda row: row.mean, default=None)
        return max(found, key=lambda row: row.train_rows or math.inf, default=by_mean)

    @property
    def positive_controls(self) -> tuple[Row, ...]:
        """Rows that add real patients who were held back: what any generator can hope for."""
        return tuple(row for row in self.rows if _added_real(row) and row.replicates)

    def to_json(self) -> dict[str, Any]:
        return {
            "run": self.run,
            "protocol": self.protocol,
            "classes": list(self.classes),
            "margin": self.margin,
            "configurations_tried": self.tried,
            "trials_unfinished": self.unfinished,
            "rows": [row.to_json() for row in self.rows],
            "remarks": list(self.remarks),
            "external": [dict(record) for record in self.external],
            "subgroups": without_nan(self.subgroups),
        }


def verdict(low: float, recalls: list[float]) -> list[str]:
    """The floor: ``low`` is the lower bound of balanced accuracy, one recall for each class."""
    flags = []
    if not low > 1 / len(recalls):
        flags.append(CHANCE)
    if any(recall < RECALL_FLOOR for recall in recalls):
        flags.append(COLLAPSE)
    return flags


def _added_real(row: Row) -> bool:
    return row.kind == MORE_REAL


MORE_REAL = "more_real"
"""The kind of the positive control's arm."""


def without_nan(value: Any) -> Any:
    """Plain JSON of ``value``: numbers that do not exist are null."""
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
