"""All that a run has left behind, read once: what the figures and the report are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from medaug.errors import UserError
from medaug.metrics.predictions import Predictions
from medaug.results.leaderboard import leaderboard_of
from medaug.results.records import TrialRecord, predictions_of, read_study, read_trials, slices_of
from medaug.results.rows import REFERENCE, Leaderboard, Row
from medaug.spec import Stage, StudySpec
from medaug.storage.artifacts import Artifacts
from medaug.store import Store

PRETRAINING = "pretrain"


@dataclass(frozen=True)
class Evidence:
    """A run, finished or not; made by :meth:`of`."""

    folder: Path
    study: StudySpec
    board: Leaderboard
    trials: Mapping[str, TrialRecord]
    """By key."""

    @staticmethod
    def of(folder: Path) -> Evidence:
        """Raises UserError when there is no such run."""
        trials = {trial.config.key: trial for trial in read_trials(folder)}
        return Evidence(folder, read_study(folder), leaderboard_of(folder), trials)

    @property
    def artifacts(self) -> Artifacts:
        """The storage that the run lies in; it may have been moved since."""
        return Artifacts(self.folder.parent)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.board.classes

    def of_stage(self, stage: Stage, *, pretraining: bool = False) -> list[TrialRecord]:
        """Trials of a stage by fold, seed and draw; pre-training on another cohort is a stage of
        its own."""
        found = [
            trial
            for trial in self.trials.values()
            if trial.config.stage == stage
            and (getattr(trial.config, "purpose", None) == PRETRAINING) == pretraining
        ]
        return sorted(found, key=_in_order)

    def done(self, stage: Stage) -> list[TrialRecord]:
        return [trial for trial in self.of_stage(stage) if trial.status == "done"]

    @cached_property
    def slices(self) -> Store | None:
        """The study's own slices; None when nothing that is left names them."""
        try:
            name = slices_of(self.folder)
        except UserError:
            return None
        return self.artifacts.open_store(name) if self.artifacts.has_store(name) else None

    def features(self, name: str) -> Store:
        """The store of real rows called ``name``, opened once: all generators of a fold read it.
        Raises as :meth:`Artifacts.open_store`."""
        if name not in self._features:
            self._features[name] = self.artifacts.open_store(name)
        return self._features[name]

    @cached_property
    def _features(self) -> dict[str, Store]:
        return {}

    @property
    def reference(self) -> Row | None:
        """See :attr:`Leaderboard.reference`."""
        return self.board.reference

    @property
    def best(self) -> Row | None:
        """The best-placed configuration with synthetic data; without any, the best that is not
        the reference. Where none can be ranked, that of the highest mean."""
        scored = [row for row in self.board.rows if row.replicates and REFERENCE not in row.flags]
        pool = [row for row in scored if row.synthetic] or scored
        ranked = [row for row in pool if row.rank is not None]
        return next(iter(ranked or sorted(pool, key=lambda row: -row.mean)), None)

    def scored(self, row: Row) -> list[TrialRecord]:
        """The finished trials of a configuration."""
        return [t for key in row.trials if (t := self.trials[key]).status == "done"]

    def predictions(self, row: Row, *trials: TrialRecord) -> Predictions:
        """The held-out predictions of a configuration's finished trials, or of some of these."""
        return predictions_of(trials or self.scored(row), len(self.classes))

    def maker(self, row: Row) -> TrialRecord | None:
        """The first finished generator (by fold and seed) of a configuration's rows."""
        stores = [self.trials[key].classify.rows or "" for key in row.trials]
        keys = {name.removeprefix("rows-") for name in stores}
        return next((t for t in self.done("generate") if t.config.key in keys), None)


def _in_order(trial: TrialRecord) -> tuple[int, int, int, str]:
    """By fold, seed, draw and key."""
    seed, draw, fold = trial.replicate
    return fold, seed, draw, trial.config.key
