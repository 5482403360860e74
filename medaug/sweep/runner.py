"""A sweep: waves of trials on a Ray cluster, resumable after anything.

Waves share a Tune run, a long one has several. What was finished before is not started, what was
begun goes on from its ledger; nothing of Tune's own state is ever read.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medaug.errors import EnvironmentFault, Interrupted
from medaug.ownership.lease import Lease
from medaug.ownership.seals import RunSeals, check_run
from medaug.ownership.signals import StopRequests
from medaug.ownership.version import note_version
from medaug.spec import ResourceSpec, StopSpec, TrialConfig
from medaug.storage.bundle_folder import BundleFolder
from medaug.storage.probe import check_storage
from medaug.storage.run_folder import refresh_run
from medaug.storage.trial_folder import TrialFolder
from medaug.sweep.budget import Budget
from medaug.sweep.cluster.descriptors import check_open_files
from medaug.sweep.cluster.start import Cluster
from medaug.sweep.ended import ended_before
from medaug.sweep.events import Listener, Listeners, Outcome
from medaug.sweep.trial.bundle import Bundle, BundleBy, alone, pack, run_bundle
from medaug.sweep.trial.rank import run_trial

if TYPE_CHECKING:
    from medaug.sweep.trial.bundle import BundleWork
    from medaug.sweep.trial.group import StartRanks
    from medaug.sweep.trial.rank import Work
    from medaug.sweep.tune.run import TuneRun

log = logging.getLogger(__name__)

Unit = TrialConfig | Bundle
"""What one Tune trial is about."""

LOST_AFTER_S = 20.0
"""How long the cluster's head may be silent."""
MOST_UNITS = 4000
"""Of one Tune run, which keeps some 40 KiB of each until its end. A longer wave is several runs,
and at the end of each the slots wait for its last trial."""
CLOSE_S = 30.0
"""How long a Tune run may take to give back what it holds; it needs 15 s where a rank hangs."""


class Sweep:
    """Runs waves of trials of one experiment; a context manager.

    ``experiment`` is the folder that holds ``trials/``; ``storage`` is where stores and models are
    shared. All nodes must see both. While it is open, this process is the experiment's only writer
    and owns the stop signals. ``start_ranks`` is for measuring the sweep itself: trials then ask
    what it gives them instead of processes.

    Raises, on entering:
        UserError: another process runs this experiment, or another version of medaug began it
            and ``allow_version_skew`` is not set.
        IntegrityError: a file of an earlier run of it is not what was written.
        EnvironmentFault: the storage cannot be written.
    """

    def __init__(
        self,
        experiment: Path,
        storage: Path,
        resources: ResourceSpec,
        *,
        address: str | None = None,
        listeners: Iterable[Listener] = (),
        wait: bool = False,
        allow_version_skew: bool = False,
        cpus: int | None = None,
        start_ranks: StartRanks | None = None,
    ) -> None:
        self._experiment = experiment.absolute()
        self._storage = storage.absolute()
        self.resources = resources
        """With GPUs as the cluster has them, once it is there."""
        self.gpus = ""
        """Which of them are used, in a line, once it is there."""
        self.seals = RunSeals(self._experiment)
        self.budget = Budget(self._experiment, resources.budget_hours)
        """What the run has held so far, of what it may hold."""
        self._listeners = Listeners([self.seals, self.budget, *listeners])
        self._wait = wait
        self._allow_version_skew = allow_version_skew
        self._cluster = Cluster(address, cpus)
        self._cpus = cpus
        self._start_ranks = start_ranks
        self._lease = Lease(self._experiment)
        self._signals = StopRequests()
        self._tune: TuneRun | None = None

    def __enter__(self) -> Sweep:
        check_storage(self._storage)
        self._lease.acquire()
        try:
            note_version(self._experiment, allow_skew=self._allow_version_skew)
            refresh_run(self._experiment)
            check_run(self._experiment)
            self.budget.open()
        except BaseException:
            self._lease.release()
            raise
        self._signals.own()
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            with self._signals.noted():
                self._close_tune()
                self._cluster.stop()
        finally:
            self._signals.give_back()
            self._lease.release()

    def prepare(self) -> None:
        """Start or join the cluster now, and see that a trial fits into it.

        Raises:
            EnvironmentFault: there is no cluster, or it is too small (without ``wait``).
        """
        with self._signals.noted():
            self._bring_up()
        self._signals.check()
        if not self._wait:
            self._cluster.require(self.resources.ranks, self.resources)

    def run(
        self,
        configs: Sequence[TrialConfig],
        *,
        work: Work = run_trial,
        stopping: StopSpec | None = None,
        bundle_by: BundleBy = alone,
        bundle_work: BundleWork = run_bundle,
        again: Collection[str] = (),
    ) -> list[Outcome]:
        """Run a wave of trials (of one stage) and return an outcome for each, in their order.

        A failing trial does not stop the others. ``work`` is a function of a module that
        the workers can import. Trials for which ``bundle_by`` gives a group are run many at once,
        those of a group next to each other, by ``bundle_work``. Trials with keys of ``again`` run
        once more though they have ended.

        Raises:
            EnvironmentFault: a trial does not fit into the cluster, or the storage is full or does
                not let it write (the other trials have ended).
            Interrupted: a stop signal came, the cluster was lost or the budget is spent; running
                the same wave again goes on from the last finished epochs.
        """
        if not configs:
            return []
        with self._signals.noted():
            return self._run_wave(configs, work, stopping, bundle_by, bundle_work, again)

    def _run_wave(
        self,
        configs: Sequence[TrialConfig],
        work: Work,
        stopping: StopSpec | None,
        bundle_by: BundleBy,
        bundle_work: BundleWork,
        again: Collection[str],
    ) -> list[Outcome]:
        self.seals.plan([config.key for config in configs])
        outcomes = ended_before(
            *(configs, self._experiment, self._storage),
            stops=stopping is not None,
            again=again,
        )
        todo = {config.key: config for config in configs if config.key not in outcomes}
        self._signals.check()
        if todo:
            self._check_budget()
        ends = {key: outcome.status for key, outcome in outcomes.items()}
        self.seals.begin(ends, todo)
        for key in todo.keys() & set(again):
            TrialFolder(self._experiment, key).undo()
        # What a bundle holds of it stays there: it runs by itself, and its own folder comes first.
        by = bundle_by if not again else lambda c: None if c.key in again else bundle_by(c)
        units = self._start(list(todo.values()), by) if todo else {}
        self.seals.flush()
        n = len(todo) + len(outcomes)
        self._listeners.tell("on_wave_start", configs[0].stage, n, len(outcomes))
        try:
            for some in _in_turn(units, MOST_UNITS if stopping is None else len(units)):
                self._signals.check()
                self._check_budget()
                outcomes |= self._run(some, work, bundle_work, stopping, ended=outcomes)
        finally:
            self._listeners.tell("on_wave_end")
            self.seals.flush()
            self.budget.save()
        self._signals.check()
        if any(outcome.status == "interrupted" for outcome in outcomes.values()):
            self._check_budget()
        out_of_storage = [o.error for o in outcomes.values() if o.error and o.storage_failed]
        if out_of_storage:  # whatever comes next would fail as well
            n = len(out_of_storage)
            raise EnvironmentFault(f"{n} trial{'s' * (n > 1)} stopped by {out_of_storage[0]}")
        return [outcomes[config.key] for config in configs]

    def slots(self, ranks: int) -> int:
        """Trials of ``ranks`` ranks that run at once; the cluster has to be there: after a run."""
        return self._cluster.slots(ranks, self.resources)

    def memory_bytes(self) -> list[int]:
        """What the workers of each node may use; the cluster has to be there: after a run."""
        return self._cluster.memory_bytes()

    def _start(self, configs: Collection[TrialConfig], bundle_by: BundleBy) -> dict[str, Unit]:
        """Have a cluster that can hold the trials, and claim their folders."""
        self._bring_up()
        ranks = max(config.ranks for config in configs)
        if not self._wait:
            self._cluster.require(ranks, self.resources)
        units = pack(configs, bundle_by, self.slots(ranks))
        for unit in units:
            if isinstance(unit, Bundle):
                BundleFolder(self._experiment, unit.key).claim_all(unit.trials)
            else:
                folder = TrialFolder(self._experiment, unit.key)
                folder.claim(unit)
                folder.reopen()
        return {unit.key: unit for unit in units}

    def _bring_up(self) -> None:
        if self._cluster.embedded:
            check_open_files(self.resources, self._cpus)
        self._cluster.start()
        self._signals.own()
        self._signals.check()
        if not self.gpus:
            self.resources, self.gpus = self._cluster.settle(self.resources)
            log.info("%s", self.gpus)
            self.budget.use(self.resources.gpus)

    def _run(
        self,
        units: dict[str, Unit],
        work: Work,
        bundle_work: BundleWork,
        stopping: StopSpec | None,
        ended: dict[str, Outcome],
    ) -> dict[str, Outcome]:
        from medaug.sweep.trial.trainable import Wave

        run = self._tune_run(len(units))
        run.begin(Wave(_name_of(work), _name_of(bundle_work)), units, stopping, ended)
        try:
            while not run.wait(seconds=0.5):
                self._look_around()
        except BaseException:
            self._tune = None  # nobody waits for what may never end
            raise
        return run.outcomes()

    def _tune_run(self, n: int) -> TuneRun:
        """The one that ran the wave before, or a new one where it takes no ``n`` more."""
        from medaug.sweep.trial.trainable import Setting
        from medaug.sweep.tune.run import AnyOf, TuneRun

        run = self._tune
        if run is None or not run.alive or run.given + n > MOST_UNITS:
            self._close_tune()
            setting = Setting(self._experiment, self._storage, self.resources, self._lease.number)
            stop = AnyOf(self._signals.asked, self.budget)
            run = self._tune = TuneRun(setting, self._listeners, stop, self._start_ranks)
            run.start()
        return run

    def _close_tune(self) -> None:
        if self._tune is not None:
            self._tune.close(CLOSE_S)
            self._tune = None

    def _look_around(self) -> None:
        """Between two looks at a wave under way: write down what is due, and see whether it is to
        be left where it is."""
        self.seals.flush_when_due()
        self.budget.save_when_due()
        if self._signals.asked_twice.is_set():
            self._signals.check()
        if self._lease.lost.is_set():
            raise Interrupted(
                f"experiment {self._experiment.name}: another process took it over while "
                "this one stood still"
            )
        patience_s = 2.0 if self._signals.asked.is_set() else LOST_AFTER_S
        if self._cluster.silence_s() > patience_s:
            self._signals.check()  # Slurm's scancel signals the cluster's processes too
            raise Interrupted("the Ray cluster is lost; `medaug resume` goes on")

    def _check_budget(self) -> None:
        if not self.budget.is_spent:
            return
        self.budget.save()
        self.budget.mark()
        raise Interrupted(
            f"resources.budget_hours: {self.budget.text}; to go on, `medaug resume "
            f"{self._experiment.name} --set resources.budget_hours=…` with more"
        )


def _in_turn(units: dict[str, Unit], most: int) -> Iterator[dict[str, Unit]]:
    """Parts of at most so many; the next one begins when one has ended."""
    each = iter(units.items())
    while some := dict(islice(each, most)):
        yield some


def _name_of(function: Any) -> str:
    return f"{function.__module__}:{function.__qualname__}"
