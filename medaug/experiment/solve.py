"""Stage ``classify`` with classifiers that are solved: milliseconds each, so many at once.

What trials share - rows in memory, their standardisation and components, what is known of the
held-out rows - is made once for all of them.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from medaug.arms import ArmContext, ResampleArm
from medaug.experiment.lineage import choosing_rows, exposure_of, lineage_of, prove_lineage
from medaug.experiment.rows import (
    TooFewRows,
    arm_of,
    first_rows,
    made_rows,
    more_real_rows,
    rows_again,
    view_rows,
)
from medaug.experiment.scores import scores_of
from medaug.spec import ClassifyTrial, LinearSpec
from medaug.storage.artifacts import Artifacts
from medaug.storage.results import (
    ClassifyResult,
    DivergedResult,
    Exposure,
    HeldOut,
    PackedArray,
    TrialResult,
)
from medaug.store import Store
from medaug.train.flat_rows import FlatRows, Pool
from medaug.train.linear import LinearClassifier, Prepared, fit_linear, prepare
from medaug.train.world import World


def solve_all(
    configs: Sequence[ClassifyTrial], artifacts: Artifacts, world: World
) -> Iterator[tuple[ClassifyTrial, TrialResult]]:
    """Each trial with its result, in order; those that share rows are best next to each other.

    Raises:
        UserError: as :func:`medaug.train.linear.fit_linear`, or a generator has seen patients that
            it must not have seen.
    """
    desk = _Desk(artifacts, world)
    for config in configs:
        try:
            yield config, desk.result(config)
        except TooFewRows as why:
            yield config, DivergedResult(why=str(why))


def solved(config: ClassifyTrial, artifacts: Artifacts, world: World) -> LinearClassifier:
    """The classifier of one trial."""
    return _Desk(artifacts, world).classifier(config)


@dataclass(eq=False)
class _Fold:
    """The real rows of one fold of a store, as the linear classifiers of one ``pool`` take them."""

    features: Store
    fold: int
    pool: Pool
    views: dict[tuple[str, ...], FlatRows] = field(default_factory=dict)
    """Its training rows transformed, by the names of the stores."""

    @cached_property
    def train(self) -> Store:
        return self.features.split("train", self.fold)

    @cached_property
    def flat_train(self) -> FlatRows:
        return FlatRows.of(self.train, self.pool)

    @cached_property
    def choosing(self) -> Store:
        return choosing_rows(self.features, self.fold)

    @cached_property
    def val(self) -> FlatRows:
        return FlatRows.of(self.choosing, self.pool)

    @cached_property
    def held_out(self) -> Store:
        return self.features.split("eval", self.fold)

    @cached_property
    def flat_held_out(self) -> FlatRows:
        return FlatRows.of(self.held_out, self.pool)

    @cached_property
    def blank(self) -> HeldOut:
        """Predictions without the probabilities."""
        rows = self.held_out
        return HeldOut.of(rows.patients, rows.slice_index, rows.labels, np.empty((0, 2)))


@dataclass(eq=False)
class _TrainingSet:
    """The real rows that a trial may train on."""

    rows: np.ndarray
    """Their numbers in the fold's training rows."""
    store: Store
    flat: FlatRows


class _Desk:
    """What was made for the last trials and may serve the next."""

    def __init__(self, artifacts: Artifacts, world: World) -> None:
        self._artifacts = artifacts
        self._world = world
        self._fold_key: Hashable = None
        self._fold: _Fold
        self._sets: dict[Hashable, _TrainingSet] = {}
        self._prepared: dict[Hashable, Prepared] = {}
        self._fits: dict[Hashable, tuple[Exposure, str, int, int]] = {}
        self._made_key: Hashable = None
        self._made: tuple[Store, FlatRows]

    def result(self, config: ClassifyTrial) -> ClassifyResult:
        fold, real = self._rows_for(config)
        found = self.classifier(config)
        probability = found.probability(fold.flat_held_out.x).astype(float)
        exposure, lineage, train_rows, train_patients = self._fitted_to(config, fold, real)
        return ClassifyResult(
            scores=scores_of(
                fold.held_out.labels, probability, found.threshold, fold.held_out.classes
            ),
            threshold=found.threshold,
            best_epoch=1,
            history=(found.scores,),
            predictions=fold.blank.model_copy(update={"probability": PackedArray.of(probability)}),
            steps=0,
            train_rows=train_rows,
            train_patients=train_patients,
            split=fold.features.manifest["splits"]["hash"],
            lineage=lineage,
            exposure=exposure,
        )

    def classifier(self, config: ClassifyTrial) -> LinearClassifier:
        spec = config.classifier
        assert isinstance(spec, LinearSpec)
        fold, real = self._rows_for(config)
        key = (config.train_rows, config.draw, spec.components)
        if key not in self._prepared:
            self._prepared[key] = prepare(spec, real.flat, fold.val)
        return fit_linear(
            *(spec, real.flat, self._added(config, fold, real), fold.val),
            only_added=not config.real_rows,
            refit=_refits(config),
            prepared=self._prepared[key],
        )

    def _rows_for(self, config: ClassifyTrial) -> tuple[_Fold, _TrainingSet]:
        spec = config.classifier
        assert isinstance(spec, LinearSpec)
        key = (config.features, config.fold, spec.pool)
        if key != self._fold_key:
            for cache in (self._sets, self._prepared, self._fits):
                cache.clear()
            features = self._artifacts.open_store(config.features)
            self._fold_key, self._fold = key, _Fold(features, config.fold, spec.pool)
        own = (config.train_rows, config.draw)
        if own not in self._sets:
            self._sets[own] = _training_set(self._fold, config)
        return self._fold, self._sets[own]

    def _added(self, config: ClassifyTrial, fold: _Fold, real: _TrainingSet) -> FlatRows | None:
        n = config.n_synthetic
        if n == 0:
            return None
        if config.rows is not None:
            store, flat = self._made_rows(config, fold)
            return _part(flat, made_rows(store, config, real.store))
        assert config.maker is not None
        arm = arm_of(config.maker)
        if arm.adds_held_back:
            return _part(fold.flat_train, more_real_rows(config, fold.train, n))
        context = ArmContext(real.store, fold.choosing, config.seed, self._world)
        if config.views:
            view, row = np.divmod(view_rows(arm, config, context), len(real.rows))
            return _part(self._views(config, fold), view * len(fold.train) + real.rows[row])
        assert isinstance(arm, ResampleArm)
        return _part(real.flat, rows_again(arm, config, context))

    def _made_rows(self, config: ClassifyTrial, fold: _Fold) -> tuple[Store, FlatRows]:
        assert config.rows is not None
        key = (config.rows, fold.pool)
        if key != self._made_key:
            store = self._artifacts.open_store(config.rows)
            if config.protocol == "honest":
                prove_lineage(store, fold.features, fold.fold)
            self._made_key, self._made = key, (store, FlatRows.of(store, fold.pool))
        return self._made

    def _views(self, config: ClassifyTrial, fold: _Fold) -> FlatRows:
        """All training rows of the fold, view after view."""
        if config.views not in fold.views:
            stores = (self._artifacts.open_store(name) for name in config.views)
            views = Store.concat(*(store.split("train", fold.fold) for store in stores))
            fold.views[config.views] = FlatRows.of(views, fold.pool)
        return fold.views[config.views]

    def _fitted_to(
        self, config: ClassifyTrial, fold: _Fold, real: _TrainingSet
    ) -> tuple[Exposure, str, int, int]:
        """Exposure and lineage, and how many real rows of how many patients it is fitted to."""
        key = (config.train_rows, config.draw, config.rows, config.real_rows, _refits(config))
        if key not in self._fits:
            added = self._made_rows(config, fold)[0] if config.rows and config.n_synthetic else None
            trained = _trained(config, fold, real)
            exposure = exposure_of(fold.features, fold.fold, trained, added)
            lineage = lineage_of(exposure, added, fold.features)
            self._fits[key] = exposure, lineage, len(trained), len(np.unique(trained.patients))
        return self._fits[key]


def _refits(config: ClassifyTrial) -> bool:
    """Whether the validation rows join the real ones at the end: see ``LinearSpec.refit``."""
    spec, whole = config.classifier, config.train_rows is None and config.real_rows
    return isinstance(spec, LinearSpec) and spec.refit and whole and config.protocol == "honest"


def _trained(config: ClassifyTrial, fold: _Fold, real: _TrainingSet) -> Store:
    """The real rows that the classifier is fitted to."""
    if not config.real_rows:
        return real.store.select(np.arange(0))
    return Store.concat(real.store, fold.choosing) if _refits(config) else real.store


def _training_set(fold: _Fold, config: ClassifyTrial) -> _TrainingSet:
    rows = np.arange(len(fold.train))
    if config.training_set is not None:
        rows = np.flatnonzero(first_rows(fold.train, config.training_set))
    return _TrainingSet(rows, fold.train.select(rows), _part(fold.flat_train, rows))


def _part(rows: FlatRows, index: np.ndarray) -> FlatRows:
    return FlatRows(rows.x[index], rows.label[index], rows.patient[index], rows.classes)
