"""The first ten minutes on a borrowed GPU: what cannot be known without one, part by part.

Each part says one line of JSON on standard error as soon as it is done, and goes on where another
has failed. Parts: ``environment``, ``steps`` (time, kernels and waits of GAN steps), ``compiled``
(do all replicates learn), ``graph`` (steps replayed as one CUDA graph against eager ones),
``repeatable`` (equal weights from equal seeds, with and without TF32), ``memory`` (what running out
of it is called) and ``nccl`` (1, 2 and 8 GPUs as there are). Without a GPU it is a rehearsal: small
sizes, parts that need one say so. Needs torch, pyarrow, numpy and pydantic only.
"""

from __future__ import annotations

import json
import socket
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.multiprocessing as mp

from medaug.arms.acgan import AcganSpec
from medaug.bench.result import Figure, Options, Result
from medaug.bench.steps_gan import Ours, acgan_pair, random_rows
from medaug.bench.workbench import Bench
from medaug.train import resident
from medaug.train.captured import RECORDERS, CapturedStep
from medaug.train.device import compute
from medaug.train.world import init_group, leave_group

Facts = dict[str, Any]

GANS: Mapping[str, Facts] = {
    "published fp32": {"preset": "as_published", "precision": "fp32"},
    "stable fp32": {"precision": "fp32"},
    "stable bf16": {"precision": "bf16"},
    "stable bf16, rows sent": {"precision": "bf16", "sent": True},
    "8 fused bf16": {"precision": "bf16", "k": 8},
}
RECORDED = ("published fp32", "stable fp32", "stable bf16", "8 fused bf16")
STEPS, WARM_UP = 30, 5
NCCL_TIMEOUT_S = 120.0


def run(options: Options) -> Result:
    """Every part that ``options`` asks for; what a part found is in the result's details."""
    bench = Bench.here(options)
    details: dict[str, Any] = {}
    figures: list[Figure] = []
    for name, part in PARTS.items():
        if not options.wants(name):
            continue
        began = time.perf_counter()
        try:
            found = part(bench)
        except Exception as error:  # another part may tell what is wrong
            traceback.print_exc(limit=-4)
            found = {"failed": f"{type(error).__name__}: {str(error)[:300]}"}
        took_s = time.perf_counter() - began
        details[name] = found
        print(json.dumps({"part": name, "took_s": round(took_s, 1), **found}, default=str),
              file=sys.stderr, flush=True)  # fmt: skip
        note = str(found.get("failed", found.get("skipped", "")))
        figures.append(Figure(name, "medaug", took_s, "s", note=note))
    notes = [] if bench.on_gpu else ["no GPU: a rehearsal with small sizes on the CPU"]
    return Result("gpu", figures, options.size, notes=notes, details=details)


def environment(bench: Bench) -> Facts:
    """Versions, the GPUs, and what they compute in."""
    cuda = torch.cuda
    return {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "gpus": [str(cuda.get_device_properties(i)) for i in range(cuda.device_count())],
        "bf16": bench.on_gpu and cuda.is_bf16_supported(including_emulation=False),
        "tf32": [torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32],
        "rows_may_take_bytes": resident.memory_for_rows(bench.world.device),
    }


def steps(bench: Bench) -> Facts:
    """Of each GAN: milliseconds a step, alone and in a stream of steps, kernels, waits."""
    return {name: _measured(bench, _gan(bench, **keys)) for name, keys in GANS.items()}


def compiled(bench: Bench) -> Facts:
    """How far weights of each replicate move in three compiled steps: all have to."""
    if not bench.on_gpu:
        return {"skipped": "compile is for GPUs"}
    found: Facts = {}
    for how in ("default", "cuda_graphs"):
        for k in (1, 3):
            gan = _gan(bench, k=k, precision="bf16", compile=how)
            moved = _moved(gan)
            found[f"{how}, {k} replicates"] = {"moved": moved, "all_learn": min(moved) > 0}
    return found


def graph(bench: Bench) -> Facts:
    """The trainer's own steps, replayed as one CUDA graph and taken eagerly: what each takes, and
    the largest difference of a weight after as many of both."""
    if bench.world.device.type not in RECORDERS:
        return {"skipped": "graphs are for GPUs"}
    found: Facts = {}
    for name in RECORDED:
        gans = {how: _gan(bench, step_graphs=how, **GANS[name]) for how in ("never", "always")}
        took = {how: _milliseconds(bench, gan) for how, gan in gans.items()}
        pairs = zip(*(gan.weights() for gan in gans.values()), strict=True)
        taker = gans["always"].taker
        found[name] = {
            "eager": took["never"],
            "replayed": took["always"],
            "recorded": isinstance(taker, CapturedStep) and taker.replays,
            "largest": max(float((a - b).abs().max()) for a, b in pairs),
        }
    return found


def repeatable(bench: Bench) -> Facts:
    """Largest difference of a weight between two trainings of one seed, and what a step takes."""
    found: Facts = {}
    try:
        for deterministic in (False, True):
            compute(deterministic=deterministic)
            runs = []
            for _ in range(2):
                gan = _gan(bench, preset="as_published", precision="fp32")
                for _ in range(5):
                    gan()
                runs.append([weight.clone().cpu() for weight in gan.weights()])
            pairs = list(zip(*runs, strict=True))
            largest = max(float((a - b).abs().max()) for a, b in pairs)
            found[f"deterministic {deterministic}"] = {
                "bitwise": all(torch.equal(a, b) for a, b in pairs),
                "largest": largest,
                "step": _measured(bench, gan),
            }
    finally:
        compute(deterministic=False)
    return found


def memory(bench: Bench) -> Facts:
    """What running out of memory raises, and whether all comes back."""
    if not bench.on_gpu:
        return {"skipped": "there is no GPU's memory"}
    held: list[torch.Tensor] = []
    try:
        while True:
            held.append(torch.empty(1 << 33, dtype=torch.uint8, device=bench.world.device))
    except RuntimeError as error:
        found = {"raised": type(error).__name__, "text": str(error)[:200]}
    held.clear()
    torch.cuda.empty_cache()
    return {**found, "reserved_bytes_after": torch.cuda.memory_reserved()}


def nccl(bench: Bench) -> Facts:
    """Sums over ranks on 1, 2 and 8 devices, as there are; on CPUs by gloo."""
    there = torch.cuda.device_count() if bench.on_gpu else 2
    found: Facts = {}
    for size in (n for n in (1, 2, 8) if n <= there):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        context = mp.get_context("spawn")
        answers: Any = context.SimpleQueue()
        arguments = (size, port, bench.on_gpu, answers)
        ranks = [context.Process(target=_rank, args=(rank, *arguments)) for rank in range(size)]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join(2 * NCCL_TIMEOUT_S)
            if process.is_alive():
                process.kill()
        sums = [answers.get() for process in ranks if process.exitcode == 0]
        right = sums == [float(size)] * size
        found[f"{size} ranks"] = {"right": right, "exits": [p.exitcode for p in ranks]}
    return found


def _rank(rank: int, size: int, port: int, on_gpu: bool, answers: Any) -> None:
    device = torch.device("cuda", rank) if on_gpu else torch.device("cpu")
    world = init_group(rank, size, "127.0.0.1", port, NCCL_TIMEOUT_S, device)
    answers.put(float(world.reduce_sum(torch.ones(1, device=device))))
    leave_group()  # a group's threads that outlive it end the process by SIGABRT


def _gan(
    bench: Bench, k: int = 1, sent: bool = False, step_graphs: Any = "never", **keys: Any
) -> Ours:
    shape = bench.sized((1024, 15, 15), (256, 15, 15), (8, 8, 8))
    width = bench.sized(64, 32, 4)
    if not bench.on_gpu:
        shape, width = (8, 8, 8), 4
    spec = AcganSpec(batch_size=16, **keys)
    norm, dropout = ("sn", 0.0) if spec.preset == "stable" else ("bn", 0.5)
    build = acgan_pair(shape, width, norm, "flat", dropout)
    world = replace(bench.world, step_graphs=step_graphs)
    gan = Ours(spec, build, [random_rows(shape, 64, i) for i in range(k)], world, range(k))
    if sent:
        for replicate in gan.replicates:
            replicate.rows.kept = None
            replicate.begin_epoch()
    return gan


def _moved(gan: Ours) -> list[float]:
    before = [weight.clone() for weight in gan.weights()]
    for _ in range(3):
        gan()
    far = [float((a - b).abs().max()) for a, b in zip(before, gan.weights(), strict=True)]
    each = len(far) // len(gan.replicates)
    return [max(far[i * each : (i + 1) * each]) for i in range(len(gan.replicates))]


def _measured(bench: Bench, step: Callable[[], object]) -> Facts:
    return {**_milliseconds(bench, step), **_kernels(bench, step), **_waits(bench, step)}


def _milliseconds(bench: Bench, step: Callable[[], object]) -> Facts:
    wait = torch.cuda.synchronize if bench.on_gpu else (lambda: None)
    steps = STEPS if bench.on_gpu else 3
    for _ in range(WARM_UP if bench.on_gpu else 1):
        step()
    wait()
    began = time.perf_counter()
    for _ in range(steps):
        step()
        wait()
    alone_s = time.perf_counter() - began
    began = time.perf_counter()
    for _ in range(steps):
        step()
    wait()
    stream_s = time.perf_counter() - began
    each = 1e3 / steps
    return {"ms_alone": round(each * alone_s, 3), "ms_in_a_stream": round(each * stream_s, 3)}


def _kernels(bench: Bench, step: Callable[[], object]) -> Facts:
    if not bench.on_gpu:
        return {}
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as profiled:
        step()
        torch.cuda.synchronize()
    events = [e for e in profiled.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    copies = sum("emcpy" in e.name or "emset" in e.name for e in events)
    return {"kernels": len(events) - copies, "copies": copies}


def _waits(bench: Bench, step: Callable[[], object]) -> Facts:
    """Where the host waited for the GPU in a step: file and line."""
    if not bench.on_gpu:
        return {}
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    told = [w for w in caught if "synchroniz" in str(w.message)]
    return {"waits": [f"{w.filename.rpartition('/')[2]}:{w.lineno}" for w in told]}


PARTS: Mapping[str, Callable[[Bench], Facts]] = {
    "environment": environment,
    "steps": steps,
    "compiled": compiled,
    "graph": graph,
    "repeatable": repeatable,
    "memory": memory,
    "nccl": nccl,
}
