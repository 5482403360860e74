"""A thousand slots in two processes, to see what a sweep's controller does with them.

A real slot is a process of a hundred megabytes; a thousand of them do not fit a machine that
develops software. So the boundary is cut where processes begin. Real: our runner, its record and
the trials' folders, Ray Tune's controller and actor manager, one Ray call and one future per
trial's step, our ``Trial``. Not real: a trial's process is an object in one of two host processes,
its placement group is a number that is counted down, and its ranks are a stub that waits. What
starting a thousand processes costs Ray itself is therefore not in the figures.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import ray
from ray.air.execution._internal import RayActorManager
from ray.air.execution.resources.request import AcquiredResources, ResourceRequest
from ray.air.execution.resources.resource_manager import ResourceManager
from ray.tune.execution import tune_controller

from medaug.storage.results import ExtractResult
from medaug.storage.trial_folder import TrialFolder
from medaug.sweep.trial import trainable as trial_module
from medaug.sweep.trial.rank import Epoch

HOSTS = 2


class StubGroup:
    """In place of a trial's ranks: one epoch, recorded as rank 0 records it."""

    device = "cpu"
    places = ()

    def __init__(self, size: int, resources: Any) -> None:
        self._folder: TrialFolder | None = None

    def begin(self, config: Any, experiment: Any, storage: Any, work: str, turn: Any) -> int:
        self._folder = TrialFolder(experiment, config.key)
        return 0

    def advance(self) -> Epoch:
        assert self._folder is not None
        self._folder.log_epoch({"epoch": 1, "metrics": {"val/score": 0.0}, "seconds": 0.0})
        self._folder.finish(ExtractResult(output="none", rows=0, shape=()))
        return Epoch(1, {"val/score": 0.0}, finished=True)

    def end(self) -> None:
        pass

    def close(self) -> None:
        pass

    kill = close


class Host:
    """A process with many trials in it; their steps wait at the same time."""

    def __init__(self, step_s: float) -> None:
        module: Any = trial_module
        module.RankGroup = StubGroup
        self._step_s = step_s
        self._trials: dict[int, Any] = {}

    async def call(
        self, slot: int, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], kind: Any
    ) -> Any:
        """Call ``method`` of the trial in ``slot``, which is a new ``kind`` to begin with."""
        if kind is not None:
            self._trials[slot] = kind(**kwargs)
            return True
        if method == "__ray_terminate__":
            self._trials.pop(slot).stop()
            return True
        if method == "train":
            await asyncio.sleep(self._step_s)
        return getattr(self._trials[slot], method)(*args, **kwargs)


class Slot:
    """What Tune's controller takes for the handle of a trial's actor."""

    def __init__(self, host: Any, number: int, ready: Any) -> None:
        self._host, self._number, self._ready = host, number, ready

    def __getattr__(self, method: str) -> _Method:
        return _Method(self, method)

    def _call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if method == "__ray_ready__":
            return self._ready
        return self._host.call.remote(self._number, method, args, kwargs, None)


class _Method:
    def __init__(self, slot: Slot, name: str) -> None:
        self._slot, self._name = slot, name

    def options(self, **_: Any) -> _Method:
        return self

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        return self._slot._call(self._name, args, kwargs)


class Slots(ResourceManager):
    """So many places, each good for any one trial."""

    def __init__(self, n: int, step_s: float) -> None:
        self._free, self._begun, self._asked = n, 0, 0
        actor: Any = ray.remote(num_cpus=0, max_concurrency=n + 8)(Host)  # type: ignore[call-overload]
        self._hosts = [actor.remote(step_s) for _ in range(HOSTS)]
        self._kinds: dict[Any, Any] = {}

    def request_resources(self, resource_request: ResourceRequest) -> None:
        self._asked += 1

    def cancel_resource_request(self, resource_request: ResourceRequest) -> None:
        self._asked -= 1

    def has_resources_ready(self, resource_request: ResourceRequest) -> bool:
        return self._asked > 0 and self._free > 0

    def acquire_resources(self, resource_request: ResourceRequest) -> AcquiredResources:
        self._free -= 1
        self._asked -= 1
        return _Place(resource_request, self)

    def free_resources(self, acquired_resource: AcquiredResources) -> None:
        self._free += 1

    def clear(self) -> None:
        self._asked = 0

    def start(self, actor: Any, kwargs: dict[str, Any]) -> Slot:
        """A trial in the next slot; ``actor`` is the class that Tune would have started."""
        kind = actor.__ray_metadata__.modified_class
        if kind not in self._kinds:
            self._kinds[kind] = ray.put(kind)
        number, self._begun = self._begun, self._begun + 1
        host = self._hosts[number % HOSTS]
        ready = host.call.remote(number, "", (), kwargs, self._kinds[kind])
        return Slot(host, number, ready)


class _Place(AcquiredResources):
    def __init__(self, request: ResourceRequest, slots: Slots) -> None:
        super().__init__(request)
        self._slots = slots

    def annotate_remote_entities(self, entities: list[Any]) -> list[Any]:
        return [_Starter(self._slots, entity) for entity in entities]

    def _annotate_remote_entity(self, entity: Any, bundle: Any, bundle_index: int) -> Any:
        raise AssertionError("annotate_remote_entities does it")


class _Starter:
    def __init__(self, slots: Slots, actor: Any) -> None:
        self._slots, self._actor = slots, actor

    def remote(self, **kwargs: Any) -> Slot:
        return self._slots.start(self._actor, kwargs)


@contextlib.contextmanager
def in_slots(n: int, step_s: float) -> Iterator[None]:
    """While it lasts, sweeps of this process run their trials in ``n`` slots of two processes."""

    class Manager(RayActorManager):
        def __init__(self, resource_manager: ResourceManager) -> None:
            own = isinstance(resource_manager, Slots)
            super().__init__(resource_manager if own else Slots(n, step_s))

        def cleanup(self) -> None:
            self._live_actors_to_ray_actors_resources.clear()  # slots cannot be killed
            super().cleanup()

    controller: Any = tune_controller
    real = controller.RayActorManager
    controller.RayActorManager = Manager
    try:
        yield
    finally:
        controller.RayActorManager = real
