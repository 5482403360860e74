"""Trials that take no time, and break on demand. Workers import this module by name."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from medaug.errors import UserError
from medaug.spec import GenerateTrial, TrialConfig, WrittenArm
from medaug.storage.results import ClassifyResult, DivergedResult, HeldOut
from medaug.train.checkpoint import Checkpoint, Progress
from medaug.train.loop import Guard
from medaug.train.world import World, distribute


def config(name: str, *, ranks: int = 1, **settings: Any) -> GenerateTrial:
    """A trial of :func:`count`, told apart by its name."""
    maker = WrittenArm.model_validate({"kind": "toy", "name": name, **settings})
    return GenerateTrial(arm=name, maker=maker, n=1, features="none", fold=0, ranks=ranks)


def settings_of(config: TrialConfig) -> Mapping[str, Any]:
    """What :func:`config` was given."""
    assert isinstance(config, GenerateTrial)
    return config.maker.model_extra or {}


def result_of(**scores: float) -> ClassifyResult:
    """A result that has nothing but scores, and has published nothing."""
    return ClassifyResult(
        scores=scores,
        threshold=0.5,
        best_epoch=1,
        predictions=HeldOut.of([], [], [], np.empty((0, 2))),
        steps=1,
        train_rows=1,
        train_patients=1,
        split="none",
        lineage="proven",
    )


def count(
    config: TrialConfig, world: World, storage: Path, resume: Checkpoint | None
) -> Iterator[Progress]:
    """Add up the epochs' numbers over all ranks; ``settings`` say what goes wrong, when and
    how often."""
    settings = settings_of(config)
    total = resume.tensors["total"].clone() if resume else torch.zeros(())
    epochs = settings.get("epochs", 3)
    for epoch in range(resume.epoch + 1 if resume else 1, epochs + 1):
        _note(storage, config, world, epoch)
        time.sleep(settings.get("seconds", 0.0))
        if settings.get("fault_epoch") == epoch and world.rank == settings.get("fault_rank", 0):
            tries = storage / f"tries-{config.key}"
            if not tries.exists() or len(tries.read_text()) < settings.get("tries", 1):
                _break(settings["fault"], tries)
                if settings["fault"] == "skip":  # the others wait for this rank in vain
                    yield Progress(epoch, {"val/score": 0.0})
        total += world.reduce_sum(torch.tensor(float(epoch)))
        result = None
        if epoch == epochs:
            result = result_of(total=total.item(), pid=os.getpid())
        yield Progress(
            epoch,
            {"val/score": settings.get("score", 0.0) + epoch},
            Checkpoint(epoch, epoch, {"total": total}),
            result,
        )


def count_many(
    configs: Sequence[TrialConfig], world: World, storage: Path
) -> Iterator[tuple[TrialConfig, ClassifyResult]]:
    """Trials of no epochs, one after the other; ``settings`` say how long each takes and which
    breaks, how often."""
    for config in configs:
        settings = settings_of(config)
        _note(storage, config, world, 1)
        time.sleep(settings.get("seconds", 0.0))
        if "fault" in settings:
            tries = storage / f"tries-{config.key}"
            if not tries.exists() or len(tries.read_text()) < settings.get("tries", 1):
                _break(settings["fault"], tries)
        total = world.reduce_sum(torch.tensor(float(len(settings["name"]))))
        yield config, result_of(total=total.item())


@dataclass(frozen=True)
class Begun:
    """An epoch that a rank has begun; whether it ended, the trial's folder says."""

    epoch: int
    time: float
    pid: int


def begun(storage: Path, config: TrialConfig, rank: int = 0) -> list[Begun]:
    """Every epoch that this rank of a trial of :func:`count` has begun, redone ones each time."""
    path = storage / f"begun-{config.key}-{rank}"
    lines = path.read_text().splitlines() if path.exists() else []
    return [Begun(int(e), float(t), int(p)) for e, t, p in map(str.split, lines)]


def _note(storage: Path, config: TrialConfig, world: World, epoch: int) -> None:
    with open(storage / f"begun-{config.key}-{world.rank}", "a") as file:
        file.write(f"{epoch} {time.time():.3f} {os.getpid()}\n")


def small_steps(
    config: TrialConfig, world: World, storage: Path, resume: Checkpoint | None
) -> Iterator[Progress]:
    """DDP steps of a tiny network; one rank sleeps before each, as one whose disk is slow."""
    network = distribute(torch.nn.Linear(4, 4), world)
    optimizer, guard = torch.optim.SGD(network.parameters(), lr=1e-3), Guard(world)
    for epoch in range(1, 4):
        for _ in range(15):
            time.sleep(settings_of(config)["seconds"] if world.rank == 1 else 0.0)
            optimizer.zero_grad()
            network(torch.ones(2, 4)).sum().backward()
            guard.step(optimizer)
        state = Checkpoint(epoch, 15 * epoch, {"weight": torch.zeros(())})
        result = result_of() if epoch == 3 else None
        yield Progress(epoch, {"val/score": float(epoch)}, state, result)


def no_such_fold(
    config: TrialConfig, world: World, storage: Path, resume: Checkpoint | None
) -> Iterator[Progress]:
    raise UserError("fold: 9 is not one of 0..4")
    yield


def ends_early(
    config: TrialConfig, world: World, storage: Path, resume: Checkpoint | None
) -> Iterator[Progress]:
    yield Progress(1, {"val/score": 1.0})


def diverges(
    config: TrialConfig, world: World, storage: Path, resume: Checkpoint | None
) -> Iterator[Progress]:
    yield Progress(1, {"val/score": 1.0})
    yield Progress(1, {}, result=DivergedResult(why="no reason"))


def _break(fault: str, tries: Path) -> None:
    with open(tries, "a") as file:
        file.write("x")
    if fault == "raise":
        raise UserError("settings.fault: 'raise' is no good; take it away")
    if fault == "skip":
        return
    if fault == "memory":  # an address space that is nearly used up, as under a batch scheduler
        used = psutil.Process().memory_info().vms
        resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), resource.RLIM_INFINITY))
        bytearray(1 << 30)
    if fault == "sleep":
        time.sleep(600)
    os.kill(os.getpid(), signal.SIGSTOP if fault == "freeze" else signal.SIGKILL)
    time.sleep(1)


def expected_total(epochs: int, ranks: int) -> float:
    return float(ranks * epochs * (epochs + 1) // 2)
