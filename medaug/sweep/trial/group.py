"""The ranks of one trial as one thing: started, driven epoch by epoch, watched, and ended."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from medaug.spec import ResourceSpec
from medaug.storage.trial_folder import TrialFolder
from medaug.sweep.cluster.draining import Notices
from medaug.sweep.trial.failures import Failure, GroupFailed, ran_low_on_memory, root_cause, triage
from medaug.sweep.trial.fence import Turn
from medaug.sweep.trial.heartbeat import Watch
from medaug.sweep.trial.rank import Epoch, Place, Rank
from medaug.train.pace import Laggard

START_TIMEOUT_S = 600.0
"""For the processes of a group to start: importing torch from a cold network disk takes long."""
END_TIMEOUT_S = 10.0
"""For the ranks to leave a trial, its last epoch saved: Tune waits for 15 seconds in all."""
PEERS_S = 2.0
"""How long to wait, after one rank failed, for what the others have to say."""


class Ranks(Protocol):
    """What a trial asks of its ranks. Every method raises GroupFailed when a rank fails, dies or
    hangs; the ranks are then of no further use but to be killed."""

    @property
    def device(self) -> str:
        """What they compute on, in a few words."""

    def begin(self, folder: TrialFolder, storage: Path, work: str, turn: Turn) -> int:
        """Make all ranks ready for a trial; returns the epoch it goes on from."""

    def advance(self) -> Epoch:
        """One epoch on every rank."""

    def leaving(self) -> list[str]:
        """Names of the nodes of theirs that the cluster will take away."""

    def end(self) -> None:
        """Leave the trial between two epochs; the ranks stay for the next one."""

    def kill(self) -> None:
        """End the processes; nothing of them remains."""

    def close(self) -> None:
        """Let the trial's generators clean up, then end the processes."""


StartRanks = Callable[[int, ResourceSpec], Ranks]


class RankGroup:
    """:class:`Ranks` as ``size`` actors in the current placement group."""

    def __init__(self, size: int, resources: ResourceSpec) -> None:
        self.size = size
        self._laggard = Laggard(size)
        self._notices = Notices()
        self._resources = resources
        group = ray.util.get_current_placement_group()
        assert group is not None, "a trial runs in its placement group"
        actor: Any = ray.remote(concurrency_groups={"control": 1})(Rank)  # type: ignore[call-overload]
        self._ranks: list[Any] = [
            actor.options(
                num_cpus=resources.cpus_per_rank,
                num_gpus=resources.gpus,
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    group, placement_group_bundle_index=index
                ),
            ).remote(
                resources.cpus_per_rank,
                resources.checkpoint_every_s,
                deterministic=resources.deterministic,
                step_graphs=resources.step_graphs,
            )
            for index in range(size)
        ]
        self.places: list[Place] = self._start([rank.place.remote() for rank in self._ranks])
        nodes = sum(node["Alive"] for node in ray.nodes())
        self._device = devices_of(self.places, nodes)
        first = self.places[0]
        gpu, timeout_s = resources.gpus > 0, resources.hang_timeout_s
        self._start(
            [
                rank.join.remote(index, size, first.host, first.port, timeout_s, gpu)
                for index, rank in enumerate(self._ranks)
            ]
        )

    def begin(self, folder: TrialFolder, storage: Path, work: str, turn: Turn) -> int:
        epochs = self._all("begin", folder, storage, work, turn)
        if len(set(epochs)) > 1:
            what = f"ranks see different checkpoints (epochs {epochs})"
            raise GroupFailed(Failure("collective", what))
        return epochs[0]

    def advance(self) -> Epoch:
        epochs = self._all("advance")
        remark = self._laggard.look([epoch.pace for epoch in epochs])
        return replace(epochs[0], remark=remark)

    @property
    def device(self) -> str:
        return self._device

    def leaving(self) -> list[str]:
        places = {place.node_id: f"node {place.host}" for place in self.places}
        places.setdefault(ray.get_runtime_context().get_node_id(), "the trial's own node")
        return sorted(places[node] for node in self._notices.leaving(places))

    def end(self) -> None:
        self._all("end")

    def kill(self) -> None:
        for rank in self._ranks:
            ray.kill(rank)

    def close(self) -> None:
        with contextlib.suppress(RayError):
            ray.get([rank.end.remote() for rank in self._ranks], timeout=END_TIMEOUT_S)
        self.kill()

    def _start(self, pending: list[ray.ObjectRef]) -> list[Any]:
        try:
            return ray.get(pending, timeout=START_TIMEOUT_S)
        except GetTimeoutError:
            what = f"its ranks did not start within {START_TIMEOUT_S:.0f} s"
            failure = Failure("lost node", what)
        except RayError as error:
            failure = self._triage(error)
        self.kill()
        raise GroupFailed(failure)

    def _all(self, method: str, *args: Any) -> list[Any]:
        """Call ``method`` on every rank and wait, as long as the ranks are alive and at work."""
        calls = [getattr(rank, method).remote(*args) for rank in self._ranks]
        watch = Watch(self._ranks, self._resources.hang_timeout_s)
        pending = list(calls)
        while pending:
            done, pending = ray.wait(pending, num_returns=1, timeout=watch.beat_s)
            if failures := self._failures(done):
                if pending:
                    done, _ = ray.wait(pending, num_returns=len(pending), timeout=PEERS_S)
                    failures += self._failures(done)
                raise GroupFailed(root_cause(failures))
            watch.check([calls.index(call) for call in pending])
        return ray.get(calls)

    def _failures(self, done: list[ray.ObjectRef]) -> list[Failure]:
        failures = []
        for call in done:
            try:
                answer = ray.get(call)
            except RayError as error:
                failures.append(self._triage(error))
            else:
                if isinstance(answer, Failure):
                    failures.append(answer)
        return failures

    def _triage(self, error: RayError) -> Failure:
        text = " ".join(str(error).split())
        # Of an actor, Ray says it in words only: it is a RayActorError like any other.
        if (failure := ran_low_on_memory(text)) is not None:
            return failure
        if not isinstance(error, RayActorError):
            return triage(getattr(error, "cause", None) or error)
        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        lost = [place.host for place in getattr(self, "places", []) if place.node_id not in alive]
        if lost or error.preempted:
            return Failure("lost node", f"a rank's node {', '.join(lost)} is gone", text)
        return Failure("rank died", "a rank's process ended unexpectedly", text)


def devices_of(places: Sequence[Place], nodes: int) -> str:
    """``cuda:3 @ 10.0.0.7``, ``cuda:0,1 @ 10.0.0.7``, ``8 cuda @ 2 nodes``; of the only one of a
    cluster's ``nodes`` just ``cpu``."""
    hosts = sorted({place.host for place in places})
    kind = places[0].device.partition(":")[0]
    if len(places) == 1:
        what = places[0].device
    elif kind == "cuda" and len(hosts) == 1:
        names = [place.device.partition(":")[2] for place in places]
        # A number, or what a part of a GPU or a GPU by its serial is called: MIG-…, GPU-….
        names.sort(key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name))
        what = f"cuda:{','.join(names)}"
    else:
        what = f"{len(places)} {kind}"
    if nodes == 1:
        return what
    return f"{what} @ {hosts[0] if len(hosts) == 1 else f'{len(hosts)} nodes'}"
