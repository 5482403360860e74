"""Ray's schedulers that end trials early, by their public names, so that they survive a resume.

Successive halving and Hyperband in their asynchronous forms (Li et al. 2020, MLSys) and the median
stopping rule (Golovin et al. 2017, KDD). Ray's synchronous ``HyperBandScheduler`` and
``HyperBandForBOHB`` are not among them: they pause trials until a whole bracket has come to its
milestone (docs/resilience.md).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule

from medaug.seeding import seed_of
from medaug.spec import AshaSpec, ClassifyTrial, HyperbandSpec, MedianSpec, StopSpec, TrialConfig
from medaug.sweep.trial.trainable import key_of
from medaug.sweep.tune.unsaved import Unsaved

NO_LIMIT = 10**9
"""Rungs go on for as long as the trials do: how long that is, they know themselves."""

Row = Mapping[str, Any]
"""A line of ``epochs.jsonl``."""


@dataclass(frozen=True, eq=False)
class Runner:
    """A trial as the schedulers see it: the same one before an interruption and after it."""

    trial_id: str
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Peers:
    """Which trials a trial is compared with, and whether it may be stopped."""

    group: Hashable = None
    spared: bool = False


def peers_of(config: TrialConfig) -> Peers:
    """All generators are compared with each other. A classifier is compared with those of its kind
    that are judged by the same validation rows; one without synthetic rows is never stopped, as
    without the controls nothing could be ranked."""
    if not isinstance(config, ClassifyTrial):
        return Peers()
    group = (config.features, config.fold, config.classifier_name, config.linear, config.train_rows)
    return Peers((*group, config.draw), not config.synthetic or config.control)


class Rule(Protocol):
    """One of Ray's schedulers, for one group of trials."""

    def add(self, runner: Runner) -> None: ...

    def note(self, runner: Runner, result: Row) -> None:
        """Take a result into account for the others."""
        ...

    def stops(self, runner: Runner, result: Row) -> bool: ...


class _Halving:
    """Asynchronous successive halving; Hyperband is several, each with a later first rung."""

    def __init__(self, spec: AshaSpec, bracket: int = 0) -> None:
        self._ray = AsyncHyperBandScheduler(
            time_attr="epoch",
            metric=f"metrics/{spec.metric}",
            mode=spec.mode,
            max_t=NO_LIMIT,
            grace_period=spec.grace_period * spec.reduction_factor**bracket,
            reduction_factor=spec.reduction_factor,
        )

    def add(self, runner: Runner) -> None:
        self._ray.on_trial_add(None, runner)  # type: ignore[arg-type]

    def note(self, runner: Runner, result: Row) -> None:
        self.stops(runner, result)

    def stops(self, runner: Runner, result: Row) -> bool:
        answer = self._ray.on_trial_result(None, runner, dict(result))  # type: ignore[arg-type]
        return answer == FIFOScheduler.STOP


class _Median:
    """Stops a trial whose best is worse than the median of the others' means so far. It never
    pauses one to let others catch up, as Ray's would."""

    def __init__(self, spec: MedianSpec) -> None:
        self._ray = MedianStoppingRule(
            time_attr="epoch",
            metric=f"metrics/{spec.metric}",
            mode=spec.mode,
            grace_period=spec.grace_period,
            min_samples_required=spec.min_samples,
            min_time_slice=math.inf,  # type: ignore[arg-type]
        )

    def add(self, runner: Runner) -> None:
        self._ray.on_trial_add(None, runner)  # type: ignore[arg-type]

    def note(self, runner: Runner, result: Row) -> None:
        self._ray.on_trial_complete(None, runner, dict(result))  # type: ignore[arg-type]

    def stops(self, runner: Runner, result: Row) -> bool:
        answer = self._ray.on_trial_result(None, runner, dict(result))  # type: ignore[arg-type]
        return answer == FIFOScheduler.STOP


class Stopping(Unsaved, FIFOScheduler):
    """Ends trials early as ``spec`` says, told first what they reported before this run.

    ``earlier`` maps the key of a trial to its lines of ``epochs.jsonl``. Without them a resumed
    sweep would compare only what comes after the interruption, and stop other trials.
    """

    def __init__(
        self,
        spec: StopSpec,
        earlier: Mapping[str, Sequence[Row]],
        peers: Mapping[str, Peers] | None = None,
    ) -> None:
        super().__init__()
        self._spec, self._wanted = spec, f"metrics/{spec.metric}"
        self._peers = peers or {}
        self._rules: dict[Hashable, Rule] = {}
        self._runners: dict[str, tuple[Rule, Runner]] = {}
        self.seen = False
        """Whether any trial has reported the metric."""
        for key, row in _by_time(earlier):
            self._note(key, _flat(row))

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """What becomes of the trial: CONTINUE or STOP."""
        key, result = key_of(trial.config), _flat(result)
        if self._peers.get(key, Peers()).spared:
            self._note(key, result)
        elif self._tells(result):
            rule, runner = self._runner(key)
            if rule.stops(runner, result):
                return self.STOP
        return self.CONTINUE

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """The trial has come to its own end; others are compared with that too."""
        self._note(key_of(trial.config), _flat(result))

    def _note(self, key: str, result: Row) -> None:
        if self._tells(result):
            rule, runner = self._runner(key)
            rule.note(runner, result)

    def _tells(self, result: Row) -> bool:
        told = self._wanted in result and math.isfinite(result[self._wanted])
        self.seen |= told
        return told

    def _runner(self, key: str) -> tuple[Rule, Runner]:
        if key not in self._runners:
            bracket = bracket_of(key, self._spec)
            group = self._peers.get(key, Peers()).group, bracket
            rule = self._rules.setdefault(group, _rule(self._spec, bracket))
            runner = Runner(key)
            rule.add(runner)
            self._runners[key] = rule, runner
        return self._runners[key]


def _flat(row: Row) -> dict[str, Any]:
    """The epoch of a line of ``epochs.jsonl`` or of a trial's report, and each of its metrics."""
    metrics = {f"metrics/{name}": value for name, value in dict(row.get("metrics", ())).items()}
    return {"epoch": row.get("epoch"), **metrics}


def bracket_of(key: str, spec: StopSpec) -> int:
    """The bracket that a trial is in: drawn as Ray's scheduler draws it, e times as often into one
    as into the next, but by the trial's key, so that it is the same after a resume."""
    if not isinstance(spec, HyperbandSpec):
        return 0
    shares = np.exp(-np.arange(spec.brackets))
    u = (seed_of("bracket", key) % 2**32) / 2**32
    return int(np.searchsorted(np.cumsum(shares / shares.sum())[:-1], u, side="right"))


def _rule(spec: StopSpec, bracket: int) -> Rule:
    if isinstance(spec, MedianSpec):
        return _Median(spec)
    assert isinstance(spec, AshaSpec)
    return _Halving(spec, bracket)


def _by_time(earlier: Mapping[str, Sequence[Row]]) -> Iterator[tuple[str, Row]]:
    """Each trial's lines in the order in which they were written; an epoch that was redone once."""
    rows = []
    for key in sorted(earlier):
        seen: set[int] = set()
        for row in earlier[key]:
            if row["epoch"] not in seen:
                seen.add(row["epoch"])
                rows.append((key, row))
    yield from sorted(rows, key=lambda item: item[1].get("time", 0.0))
