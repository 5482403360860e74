"""Many short trials as one: run one after the other by ranks that start once.

A trial of some milliseconds is not worth a place on a cluster, a few durable writes and a message
to the driver; some hundreds of them are. Each keeps its own key and result, and is found by them
whichever bundle it ran in; those that have ended are not run again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from medaug.spec import TrialConfig
from medaug.storage.bundle_folder import BundleFolder, Member, bundle_key
from medaug.storage.results import TrialResult
from medaug.sweep.trial.failures import Failure, triage
from medaug.sweep.trial.fence import Fence

if TYPE_CHECKING:
    from medaug.train.checkpoint import Progress
    from medaug.train.world import World

    BundleWork = Callable[
        [Sequence[TrialConfig], World, Path], Iterator[tuple[TrialConfig, TrialResult]]
    ]
    """What the ranks of a bundle do: run trials one after the other, in the order given, and yield
    each with its result."""

BundleBy = Callable[[TrialConfig], Hashable | None]
"""Trials for which it gives the same share what they read and are best run next to each other; one
for which it gives None is run by itself."""


def alone(config: TrialConfig) -> None:
    """A :data:`BundleBy` that bundles nothing."""


def run_bundle(
    configs: Sequence[TrialConfig], world: World, storage: Path
) -> Iterator[tuple[TrialConfig, TrialResult]]:
    """The work of a study's bundles, imported where it runs."""
    from medaug import experiment

    return experiment.run_bundle(configs, world, storage)


COMMIT_EVERY_S = 2.0
LARGEST = 250
"""Trials in a bundle, at most: what a rank that dies for good takes with it."""
MOST_NAMES = 3
"""Arms that a bundle's title names."""
PER_SLOT = 4
"""Bundles for each place of the cluster, so that none stands idle for long at the end."""


@dataclass(frozen=True)
class Bundle:
    """Trials that are run together, in this order."""

    trials: tuple[TrialConfig, ...]

    @cached_property
    def key(self) -> str:
        """Twelve hex digits: the signature of its trials' keys."""
        return bundle_key(self.trials)

    @property
    def title(self) -> str:
        """For people: whose trials they are, and how many."""
        names = [*dict.fromkeys(trial.title.split()[0] for trial in self.trials)]
        shown = ", ".join(names[:MOST_NAMES]) + (", …" if len(names) > MOST_NAMES else "")
        return f"{shown} ({len(self.trials)} trials)"

    @property
    def ranks(self) -> int:
        return max(trial.ranks for trial in self.trials)


def pack(trials: Iterable[TrialConfig], by: BundleBy, slots: int) -> list[TrialConfig | Bundle]:
    """``trials``, those that ``by`` puts together as bundles for ``slots`` places.

    Trials of a group stay next to each other, groups in the order in which they first appear.
    Trials of different numbers of ranks are never in one bundle.
    """
    alone: list[TrialConfig | Bundle] = []
    groups: dict[tuple[int, Hashable], list[TrialConfig]] = {}
    for trial in trials:
        group = by(trial)
        if group is None:
            alone.append(trial)
        else:
            groups.setdefault((trial.ranks, group), []).append(trial)
    bundles: list[TrialConfig | Bundle] = []
    for ranks in sorted({ranks for ranks, _ in groups}):
        queue = [t for (own, _), group in groups.items() if own == ranks for t in group]
        size = min(LARGEST, math.ceil(len(queue) / (PER_SLOT * max(1, slots))))
        bundles += [Bundle(tuple(queue[i : i + size])) for i in range(0, len(queue), size)]
    return bundles + alone


class BundleRun:
    """The trials of a bundle that have not ended, on this rank.

    ``fence`` is that of the rank that writes, None on the others.
    """

    def __init__(
        self,
        folder: BundleFolder,
        world: World,
        storage: Path,
        work: BundleWork,
        fence: Fence | None,
    ) -> None:
        trials = folder.trials()
        ended = folder.ended()
        self._folder = folder
        self._world = world
        self._storage = storage
        self._work = work
        self._fence = fence
        self._todo = [trial for trial in trials if trial.key not in ended]
        self._unsaved: list[Member] = []
        self.n_ended = len(trials) - len(self._todo)

    def epochs(self) -> Iterator[Progress]:
        """One Progress each time that results were committed; its ``epoch`` counts the trials that
        have ended. Closing it commits those that ended since."""
        from medaug.train.checkpoint import Progress

        committed = time.monotonic()
        try:
            for member in self._members():
                self._unsaved.append(member)
                self.n_ended += 1
                if time.monotonic() - committed >= COMMIT_EVERY_S:
                    self._commit()
                    yield Progress(self.n_ended, {})
                    committed = time.monotonic()
            self._commit()
            yield Progress(self.n_ended, {}, result=TrialResult())
        finally:
            self._commit()

    def _members(self) -> Iterator[Member]:
        """The trials as they end. One that fails by its own fault fails alone, if there is one
        rank: of several, the others may be waiting for it in the middle of a step."""
        todo = list(self._todo)
        while todo:
            started = time.perf_counter()
            try:
                for trial, result in self._work(tuple(todo), self._world, self._storage):
                    assert trial.key == todo[0].key, "a bundle's trials end in their order"
                    seconds = time.perf_counter() - started
                    yield Member(todo.pop(0).key, result, round(seconds, 4), _now())
                    started = time.perf_counter()
                assert not todo, f"{len(todo)} trials of the bundle ended without a result"
            except Exception as error:
                failure = triage(error)
                if self._world.size > 1 or not _is_its_own(failure):
                    raise
                seconds = time.perf_counter() - started
                failed = failure.as_dict()
                yield Member(todo.pop(0).key, None, round(seconds, 4), _now(), failed)

    def _commit(self) -> None:
        members, self._unsaved = self._unsaved, []
        if self._fence is not None and members:
            self._fence.check()
            self._folder.commit(members)


def _is_its_own(failure: Failure) -> bool:
    """Whether the next trial may well succeed where this one failed."""
    return failure.kind in ("configuration", "damaged file", "error")


def _now() -> float:
    return round(time.time(), 3)
