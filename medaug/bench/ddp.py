"""Data-parallel training of the ACGAN on two ranks: how efficient, and how equal to one.

Parts: ``equality`` (weights after four steps against one rank with the same global batch) and
``efficiency`` (time of one rank on the global batch over twice the time of two ranks that share
it). Ranks are processes of this machine with one thread each, joined by gloo; with two GPUs or
more they have one each, joined by NCCL.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from torch.distributed import TCPStore

from medaug.bench.result import Figure, Options, Result
from medaug.bench.steps_gan import BATCH, Ours, acgan_pair, random_rows
from medaug.bench.timing import Spread
from medaug.bench.workbench import Bench, one_thread
from medaug.errors import MedaugError
from medaug.spec.arms import AcganSpec
from medaug.train.allocator import keep_freed_memory
from medaug.train.world import World, init_group, leave_group

RANKS = 2
STEPS = 4
EFFICIENCY = 0.70
EQUAL = 1e-6
PATIENCE_S = 900.0

Case = tuple[str, tuple[int, int, int], int, str]
"""Name, shape of a row, width, and the discriminator's norm."""


def run(options: Options) -> Result:
    """Measure on two ranks.

    Raises:
        MedaugError: a rank failed or said nothing for long.
    """
    shape = {"full": (1024, 15, 15), "quick": (256, 15, 15), "tiny": (8, 8, 8)}[options.size]
    widths = {"full": (64, 256), "quick": (64,), "tiny": (4,)}[options.size]
    rounds = {"full": 9, "quick": 5, "tiny": 1}[options.size]
    figures = []
    if options.wants("equality"):
        norms = {"spectral norm": "sn", "synchronised batch norm": "bn"}
        figures += _equality([(name, shape, widths[0], norm) for name, norm in norms.items()])
    if options.wants("efficiency"):
        for width in widths:
            case: Case = (f"acgan {width}", shape, width, "sn")
            target = None if options.size == "tiny" else EFFICIENCY
            figures.append(_efficiency(case, rounds, target))
    return Result(
        "ddp",
        figures,
        options.size,
        notes=[
            "times are on the wall, turn by turn; with fewer free cores than ranks the ranks wait "
            "for each other, and the efficiency says so",
            "the generator has synchronised batch norm in every case",
        ],
    )


def _equality(cases: list[Case]) -> list[Figure]:
    with one_thread():
        alone = _weights_after_steps(Bench.here(Options()).world, cases)
    both = _on_ranks(RANKS, _weights_after_steps, cases)
    figures = []
    for i, case in enumerate(cases):
        pairs = [pair for rank in both for pair in zip(alone[i], rank[i], strict=True)]
        figures.append(
            Figure(
                part=f"equality, {case[0]}",
                subject=f"{RANKS} ranks fp32",
                value=max(float(np.abs(a - b).max()) for a, b in pairs),
                unit=f"largest difference after {STEPS} steps",
                against="1 rank, same global batch",
                target=EQUAL,
                better="lower",
            )
        )
    return figures


def _efficiency(case: Case, rounds: int, target: float | None) -> Figure:
    first, *_ = _on_ranks(RANKS, _times, case, rounds)
    ratios = [alone / (RANKS * together) for alone, together in first]
    return Figure(
        part=f"efficiency, {case[0]}",
        subject=f"{RANKS} ranks bf16",
        value=Spread.of([1e3 * together / STEPS for _, together in first]).median,
        unit="ms/step",
        ratio=Spread.of(ratios),
        against="1 rank, same global batch",
        target=target,
    )


def _ours(case: Case, world: World, precision: str) -> Ours:
    _, shape, width, norm = case
    # Adam moves weights whose gradient is mere rounding by the whole rate, in either direction.
    spec = AcganSpec(batch_size=BATCH, precision=precision, lr_g=1e-5, lr_d=1e-5)  # type: ignore[arg-type]
    build = acgan_pair(shape, width, norm, "flat", dropout=0.0)
    return Ours(spec, build, [random_rows(shape, 4 * BATCH)], world)


def _weights_after_steps(world: World, cases: list[Case]) -> list[list[np.ndarray]]:
    """All parameters, case by case."""
    weights = []
    for case in cases:
        ours = _ours(case, world, "fp32")
        for _ in range(STEPS):
            ours()
        weights.append([tensor.cpu().numpy() for tensor in ours.weights()])
    return weights


def _times(world: World, case: Case, rounds: int) -> list[tuple[float, float]]:
    """Seconds of some steps of the first rank alone, and of both together, round by round."""
    together = _ours(case, world, "bf16")
    alone = _ours(case, World.single(world.device), "bf16")
    measured = []
    for _ in range(-1, rounds):
        world.barrier()
        one = _seconds(alone) if world.is_main else 0.0
        world.barrier()
        measured.append((one, _seconds(together)))
    return measured[1:]


def _seconds(step: Ours) -> float:
    started = time.perf_counter()
    for _ in range(STEPS):
        step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _on_ranks(size: int, function: Any, *arguments: Any) -> list[Any]:
    """What ``function(world, *arguments)`` gives on each of ``size`` fresh processes."""
    # The meeting place is here, not in rank 0: a port that was free a moment ago may not be now.
    meeting = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    context = multiprocessing.get_context("spawn")
    pipes: list[Connection] = []
    processes = []
    for rank in range(size):
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_rank, args=(theirs, rank, size, meeting.port, function, arguments), daemon=True
        )
        process.start()
        theirs.close()  # so that a rank that dies is heard
        pipes.append(ours)
        processes.append(process)
    try:
        answers = []
        for rank, pipe in enumerate(pipes):
            try:
                if not pipe.poll(PATIENCE_S):
                    raise EOFError
                answers.append(pipe.recv())
            except EOFError:
                raise MedaugError(f"ddp: rank {rank} of {size} gave no answer") from None
        return answers
    finally:
        for process in processes:
            process.join(10)
            process.kill()


def _rank(
    pipe: Connection, rank: int, size: int, port: int, function: Any, arguments: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    keep_freed_memory()  # as the ranks of a sweep do
    os.environ |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
    gpu = torch.cuda.device_count() >= RANKS
    device = f"cuda:{rank}" if gpu else "cpu"
    world = init_group(rank, size, "127.0.0.1", port, PATIENCE_S, device, rank)
    pipe.send(function(world, *arguments))
    leave_group()
