"""What the trials of a run left behind, read back from their folders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from medaug.errors import IntegrityError, UserError
from medaug.metrics.predictions import Predictions
from medaug.spec import ClassifyTrial, GenerateTrial, StudySpec, TrialConfig, written_study
from medaug.storage.bundle_folder import Bundled, Member
from medaug.storage.json_files import read_json
from medaug.storage.results import ClassifyResult, TrialResult
from medaug.storage.run_folder import study_data
from medaug.storage.trial_folder import TrialFolder


@dataclass(frozen=True)
class TrialRecord:
    """One trial's configuration and how it ended (``result`` is None until it is done)."""

    config: TrialConfig
    status: str
    """done, diverged, stopped, failed or unfinished."""
    result: TrialResult | None
    folder: Path
    error: str | None = None

    @property
    def classify(self) -> ClassifyTrial:
        """The configuration, of a trial of that stage."""
        assert isinstance(self.config, ClassifyTrial)
        return self.config

    @property
    def generate(self) -> GenerateTrial:
        """The configuration, of a trial of that stage."""
        assert isinstance(self.config, GenerateTrial)
        return self.config

    @property
    def classified(self) -> ClassifyResult:
        """The result, of a finished trial of that stage."""
        assert isinstance(self.result, ClassifyResult)
        return self.result

    @property
    def scores(self) -> Mapping[str, float]:
        """Of its result; nothing where it has none."""
        return self.result.scores if self.result else {}

    @property
    def replicate(self) -> tuple[int, int, int]:
        """(seed, draw, fold)."""
        return self.config.seed, getattr(self.config, "draw", 0), self.config.fold

    member: Member | None = None
    """How it ended, where it ran in a bundle; its ``folder`` does not exist then."""

    @cached_property
    def epochs(self) -> list[dict[str, Any]]:
        """The lines of ``epochs.jsonl``: ``epoch``, ``metrics``, ``seconds``, ``save_seconds``,
        ``time`` (when it was safe). An epoch that had to be redone appears twice. A trial of a
        bundle has one."""
        if self.member is not None:
            took = {"seconds": self.member.seconds, "save_seconds": 0.0}
            return [{"epoch": 1, "metrics": {}, **took, "time": self.member.time}]
        return TrialFolder(self.folder.parents[1], self.folder.name).epochs()

    @cached_property
    def laps(self) -> list[dict[str, Any]]:
        """The lines of ``times.jsonl``: ``time``, and ``seconds`` by bucket before it."""
        return TrialFolder(self.folder.parents[1], self.folder.name).laps()

    @cached_property
    def history(self) -> dict[int, dict[str, float]]:
        """Metrics of each epoch, in order; of one that was redone, the last word."""
        rows = {row["epoch"]: row["metrics"] for row in self.epochs}
        return dict(sorted(rows.items()))

    @property
    def ended(self) -> float:
        """When its last epoch was safe, in seconds since 1970; 0 before the first."""
        return self.epochs[-1]["time"] if self.epochs else 0.0

    @property
    def device_seconds(self) -> float:
        """Time spent on epochs and checkpoints, redone ones included, times the ranks."""
        spent = sum(row["seconds"] + row["save_seconds"] for row in self.epochs)
        return spent * self.config.ranks


def read_study(folder: Path) -> StudySpec:
    """The resolved study of the run in ``folder``, to be read: its arms are as they were written.

    Raises:
        UserError: there is no such run; names the runs that exist.
        IntegrityError: its file holds no study.
    """
    data, path = study_data(folder), folder / "study.json"
    try:
        return written_study(data)
    except UserError as why:
        raise IntegrityError(f"{path}: holds no study ({why}); run the study again") from None


def read_trials(folder: Path) -> Iterator[TrialRecord]:
    """Every trial of the run in ``folder``: those with folders of their own in the order of their
    keys, then those of bundles in that order."""
    bundled = {record.config.key: record for record in _read_bundled(folder)}
    for path in sorted((folder / "trials").glob("*/config.json")):
        record = read_trial(path.parent)
        # It may have run by itself at one time, in a bundle at another.
        twin = bundled.get(record.config.key)
        if twin is None or twin.result is None or record.result is not None:
            bundled.pop(record.config.key, None)
            yield record
    yield from bundled.values()


def read_trial(path: Path) -> TrialRecord:
    """The trial whose own folder this is, or would be if it had not run in a bundle."""
    if not (path / "config.json").exists():
        for record in _read_bundled(path.parents[1], path.name):
            return record
    folder = TrialFolder(path.parents[1], path.name)
    config = folder.config()
    if (result := folder.result()) is not None:
        return TrialRecord(config, result.status, result, path)
    if folder.stopped() is not None:
        return TrialRecord(config, "stopped", None, path)
    if (failure := folder.failure()) is not None:
        return TrialRecord(config, "failed", None, path, failure["error"])
    return TrialRecord(config, "unfinished", None, path)


def slices_of(folder: Path) -> str:
    """The name of the slice store of the study in ``folder``.

    Raises:
        UserError: nothing that is left tells it.
    """
    if (data := read_json(folder / "data.json")) is not None:
        return str(data["slices"])
    for trial in read_trials(folder):
        if getattr(trial.config, "purpose", None) is None:
            for name in trial.config.inputs:
                if name.startswith("slices-"):
                    return name
    raise UserError(f"{folder.name}: nothing tells which scans it read; resume the run")


def _read_bundled(folder: Path, *keys: str) -> Iterator[TrialRecord]:
    """The trials of bundles, or those of ``keys``."""
    bundled = Bundled(folder)
    trials = bundled.trials()
    wanted = sorted(trials.keys() & keys if keys else trials)
    members = bundled.members(wanted)
    for key in wanted:
        member, path = members.get(key), folder / "trials" / key
        if member is None:
            yield TrialRecord(trials[key], "unfinished", None, path)
        elif member.result is None:
            assert member.failure is not None
            error = member.failure["error"]
            yield TrialRecord(trials[key], "failed", None, path, error, member)
        else:
            status = member.result.status
            yield TrialRecord(trials[key], status, member.result, path, None, member)


def predictions_of(trials: Iterable[TrialRecord], n_classes: int) -> Predictions:
    """The held-out predictions of finished ``classify`` trials, one after the other."""
    tables = []
    for trial in trials:
        rows = trial.classified.predictions
        table = Predictions.of_trial(
            rows.patient_names(),
            rows.label.array(),
            rows.probability.array(),
            seed=trial.config.seed,
            draw=trial.classify.draw,
            fold=trial.config.fold,
            threshold=trial.classified.threshold,
            n_classes=n_classes,
        )
        tables.append(table)
    return Predictions.concat(tables)
