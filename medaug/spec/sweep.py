"""The section ``sweep`` of a study: its axes, how they are searched, and what ends trials early."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from medaug.spec.base import Positive, Spec
from medaug.spec.per_class import UNIFORM, PerClass, per_class_title


class StopSpec(Spec):
    """What ends trials early. Only what they are judged by while they train can end them, which is
    never a scored patient."""

    metric: str = "val/fd"
    """Of generators."""
    mode: Literal["min", "max"] = "min"
    grace_period: Positive = 10
    """Epochs before which nothing is ended."""
    classifiers: bool = False
    """Classifiers with synthetic rows too, by the balanced accuracy of their validation rows, among
    those of their kind and fold. A row of the leaderboard that lacks one is not ranked."""

    def of_classifiers(self) -> Self:
        """The same for the classifiers' wave. (Their losses are weighted in different ways.)"""
        return self.model_copy(update={"metric": "val/balanced_accuracy", "mode": "max"})


class AshaSpec(StopSpec):
    """Asynchronous successive halving (Li et al. 2020)."""

    reduction_factor: Annotated[int, Field(ge=2)] = 3


class HyperbandSpec(AshaSpec):
    """Asynchronous Hyperband (Li et al. 2020): successive halving in several brackets, each with
    ``reduction_factor`` times the grace period of the one before."""

    brackets: Annotated[int, Field(ge=2)] = 3


class MedianSpec(StopSpec):
    """The median stopping rule (Golovin et al. 2017): a trial ends whose best value is worse than
    the median of the others' means up to the same epoch."""

    min_samples: Annotated[int, Field(ge=2)] = 3
    """Others that must have come so far."""


STOPPING = ("asha", "hyperband", "median")
"""Keys of the ways to end trials early."""


class SweepSpec(Spec):
    """The axes of a study. Every configuration is run with all seeds and all folds."""

    n_synthetic: tuple[Annotated[int, Field(ge=1)], ...] = (300, 600, 1158, 1200, 2400, 4800)
    """Ratio axis: how many synthetic (or duplicate, or augmented) rows join the real ones."""
    per_class: tuple[PerClass, ...] = (UNIFORM,)
    """Whom to add, an axis like the others: ``uniform`` (as many rows of each class), ``rare_only``
    (all to the class with the fewest training rows), ``balance`` (to the rarer ones until they have
    as many as the largest, the rest evenly), or shares by class like ``{LGG: 0.8, HGG: 0.2}``."""
    train_rows: tuple[Positive | Literal["all"], ...] | None = None
    """Training-set size axis: real training rows kept (patients drawn whole), ``all`` among them
    or alone; None: all."""
    grid: Mapping[str, tuple[Any, ...]] = {}
    """Arm axes by dotted key, for example ``acgan.ngf: [64, 256, 512]``."""
    tie: tuple[tuple[str, ...], ...] = ()
    """Groups of grid keys that move together, for example ``[[acgan.ngf, acgan.ndf]]``."""
    search: Literal["grid", "random", "optuna"] = "grid"
    space: Mapping[str, Mapping[str, Any]] = {}
    """For ``random`` and ``optuna``: dotted key -> {choice: [..]} | {uniform: [a, b]} |
    {loguniform: [a, b]} | {randint: [a, b]}."""
    samples: Positive = 8
    keep: Positive = 1
    """For ``optuna``: how many of the best configurations get all seeds and folds."""
    seeds: tuple[int, ...] = (0, 1, 2)
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """A gain in balanced accuracy that is too small to matter: rows whose upper bound is below it
    end in ``no gain above +margin``."""
    draws: Positive = 1
    """How often each training set of ``train_rows`` is drawn: which patients it holds is a
    replicate beside seeds and folds."""
    asha: AshaSpec | None = None
    hyperband: HyperbandSpec | None = None
    median: MedianSpec | None = None
    max_trials: Positive = 10_000

    @field_validator("n_synthetic", "seeds", "train_rows")
    @classmethod
    def _not_empty(cls, values: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if values is None:
            return None
        if not values:
            raise ValueError("is empty: 0 trials")
        return tuple(dict.fromkeys(values))

    @field_validator("per_class")
    @classmethod
    def _each_once(cls, values: tuple[PerClass, ...]) -> tuple[PerClass, ...]:
        if not values:
            raise ValueError("is empty: 0 trials")
        return tuple({per_class_title(value): value for value in values}.values())

    @model_validator(mode="after")
    def _draws_of_something(self) -> SweepSpec:
        if self.draws > 1 and not self.small_sizes:
            raise ValueError("draws: there is one draw of all rows; give train_rows as well")
        return self

    @model_validator(mode="after")
    def _one_way_to_stop(self) -> SweepSpec:
        given = [name for name in STOPPING if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} both end trials early: take one of them")
        return self

    @property
    def stopping(self) -> tuple[str, StopSpec] | None:
        """What ends trials early, after its key; None where nothing does."""
        found = ((name, getattr(self, name)) for name in STOPPING)
        return next(((name, spec) for name, spec in found if spec is not None), None)

    @property
    def small_sizes(self) -> tuple[int, ...]:
        """Those of ``train_rows`` that hold real rows back."""
        return tuple(n for n in self.train_rows or () if n != "all")

    @field_validator("grid")
    @classmethod
    def _axes_not_empty(cls, grid: Mapping[str, tuple[Any, ...]]) -> Mapping[str, tuple[Any, ...]]:
        for key, values in grid.items():
            if not values:
                raise ValueError(f"axis {key} is empty: 0 trials")
        return grid
