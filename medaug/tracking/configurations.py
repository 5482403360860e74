"""The trials of bundles as MLflow shows them: a run for each configuration, not for each of them.

A thousand replicates of a few configurations would be a thousand runs to send and nothing to look
at. Their means say as much; each replicate's own result is in the run's folder.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medaug.errors import IntegrityError
from medaug.spec import ClassifyTrial, GenerateTrial, TrialConfig, signature
from medaug.storage.bundle_folder import BundleFolder, read_part
from medaug.tracking.params import finite, trial_params
from medaug.tracking.runs import Point

if TYPE_CHECKING:
    from medaug.tracking.mirror import Mirror


@dataclass
class Configuration:
    """Replicates that differ in seed, fold and patients only."""

    first: TrialConfig
    trials: set[str] = field(default_factory=set)
    """Their keys."""
    scores: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """By name, of those that are done."""
    done: set[str] = field(default_factory=set)
    diverged: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    seconds: float = 0.0
    began: float = float("inf")
    ended: float = 0.0

    def metrics(self) -> dict[str, float]:
        """Means of the scores, and how many replicates they are of."""
        means = {f"score/{name}": statistics.fmean(x) for name, x in self.scores.items()}
        counts = {name: len(getattr(self, name)) for name in ("trials", "done", "diverged")}
        return {**means, **counts, "failed": len(self.not_made), "seconds": self.seconds}

    @property
    def not_made(self) -> set[str]:
        """Keys of those that failed, and have not made it since."""
        return self.failed - self.done - self.diverged


class Configurations:
    """The configurations of the trials in bundles of ``folder``; each file is read once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, Configuration] = {}
        self._of_trial: dict[str, str] = {}
        self._read: set[Path] = set()

    def changed(self) -> dict[str, Configuration]:
        """By name, those of which there is more than there was the last time."""
        names: set[str] = set()
        for path in sorted((self._folder / "bundles").glob("*")):
            bundle = BundleFolder(self._folder, path.name)
            if path not in self._read:
                self._read.add(path)
                names |= self._add_trials(bundle.trials())
            for part in bundle.parts():
                if part not in self._read:
                    self._read.add(part)
                    with suppress(IntegrityError):  # whoever reads the results says so
                        names |= self._add_part(part)
        return {name: self._known[name] for name in sorted(names)}

    def _add_trials(self, trials: Iterable[TrialConfig]) -> set[str]:
        names = set()
        for trial in trials:
            name = name_of(trial)
            self._known.setdefault(name, Configuration(trial)).trials.add(trial.key)
            self._of_trial[trial.key] = name
            names.add(name)
        return names

    def _add_part(self, part: Path) -> set[str]:
        names = set()
        for member in read_part(part):
            name = self._of_trial[member.key]
            known = self._known[name]
            names.add(name)
            known.seconds += member.seconds
            known.began = min(known.began, member.time - member.seconds)
            known.ended = max(known.ended, member.time)
            if member.result is None:
                known.failed.add(member.key)
            elif member.result.status == "diverged":
                known.diverged.add(member.key)
            elif member.key not in known.done:
                known.done.add(member.key)
                for score, value in finite(member.result.scores)[0].items():
                    known.scores[score].append(value)
        return names


def name_of(trial: TrialConfig) -> str:
    """That of the trial's configuration."""
    alike = trial.configuration if isinstance(trial, ClassifyTrial) else (trial.title,)
    return signature({"stage": trial.stage, "configuration": alike})


def send_configurations(mirror: Mirror, configurations: Configurations) -> None:
    """Bring MLflow's runs of the configurations that have changed up to date."""
    for name, one in configurations.changed().items():
        key = f"{mirror.folder.name}/of-{name}"
        title = f"{one.first.stage} {_title(one.first)} ({len(one.trials)} replicates)"
        began_ms = _ms(one.began) if one.done or one.failed or one.diverged else None
        run = mirror.runs.open(key, title, parent=mirror.parent, began_ms=began_ms)
        ended = len(one.done | one.diverged | one.failed)
        complete = ended == len(one.trials)
        tags: dict[str, Any] = {
            "stage": one.first.stage,
            "status": "running" if not complete else "failed" if one.not_made else "done",
        }
        if isinstance(one.first, GenerateTrial | ClassifyTrial):
            tags["arm"] = one.first.arm
        new = {k: v for k, v in one.metrics().items() if run.metrics.get(k) != v}
        when_ms = _ms(one.ended) if one.ended else _ms(0.0)
        points = [Point(k, v, ended, when_ms) for k, v in new.items()]
        params = trial_params(one.first, mirror.study)
        shared = {k: v for k, v in params.items() if k not in ("fold", "seed", "draw")}
        mirror.runs.log(run, params=shared, tags=tags, points=points)
        status = "RUNNING" if not complete else "FAILED" if one.not_made else "FINISHED"
        mirror.runs.set_status(run, status, ended_ms=when_ms if complete else None)


def _title(trial: TrialConfig) -> str:
    """Of all replicates alike."""
    draws = isinstance(trial, GenerateTrial | ClassifyTrial)
    return trial.model_copy(update={"draw": 0}).title if draws else trial.title


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
