"""``precision: auto``: bfloat16 where this node is faster with it, found by looking.

GPUs before the A100 (T4, V100) only emulate bfloat16, but have units for float16: there float16 is
looked at instead, with losses that are scaled (:meth:`medaug.train.loop.Training.scale_losses`),
since its range ends at 65,504 and begins at 6e-8. What cannot be held in that is float32.

Whether bfloat16 pays depends on the processor and on the network: on one with AVX-512 and BF16
units wide convolutions are twice as fast, on one with AVX2 alone a product of matrices is eighty
times as slow, and small maps lose to the casts everywhere. So one pass of the network itself is
timed both ways, in about a second, and the answer is kept on the node.

What a configuration says stays ``auto``, which is what names a trial; what was chosen goes into its
checkpoint, which a resumed trial keeps to, and into its result.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch
from torch import nn

from medaug.storage.files import private_folder, write_whole
from medaug.train.device import has_bfloat16
from medaug.train.world import World

log = logging.getLogger(__name__)

Settled = Literal["fp32", "bf16", "fp16"]

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
OVERRIDE = "MEDAUG_PRECISION"
"""Environment: ``fp32``, ``bf16`` or ``fp16`` answers for ``auto`` without a measurement."""
WORTH = 1.1
"""Bfloat16 has to be so many times as fast; it rounds to 8 bits, which should buy something."""
HOPELESS = 3.0
"""A product of matrices that is so many times as slow ends the measurement at once."""
BUDGET_S = 1.0
ROUNDS = 5

OnePass = Callable[[dict[str, nn.Module]], Callable[[], None]]

_known: dict[str, float] = {}
"""Of this process: key of a measurement -> how many times as fast bfloat16 is."""


def autocast(world: World, precision: str) -> torch.autocast:
    """Autocast to bf16 or fp16, where that is the ``precision``; weights stay fp32."""
    narrow = precision in DTYPES
    return torch.autocast(world.device.type, DTYPES.get(precision, torch.bfloat16), enabled=narrow)


def settle(
    asked: str,
    networks: Mapping[str, nn.Module],
    one_pass: OnePass,
    world: World,
    facts: dict,
    *,
    no_fp16: str | None = None,
) -> Settled:
    """What ``asked`` (auto, fp32 or bf16) means here, the same on every rank.

    Args:
        networks: what is going to be trained; copies of them are timed.
        one_pass: copies -> something to call, which runs forward and backward once.
        facts: of the training (:class:`medaug.train.loop.Training`): an answer that is in it is
            kept, a new one is put in.
        no_fp16: why this training cannot be in fp16, if it cannot.
    """
    chosen: Settled | None = facts.get("precision")
    if chosen is None:
        chosen = _choose(asked, networks, one_pass, world, no_fp16)
        facts["precision"] = chosen
    return chosen


def _choose(
    asked: str,
    networks: Mapping[str, nn.Module],
    one_pass: OnePass,
    world: World,
    no_fp16: str | None,
) -> Settled:
    device, given = world.device, os.environ.get(OVERRIDE) if asked == "auto" else None
    if asked == "fp32" or given in ("fp32", "bf16"):
        return given or "fp32"  # type: ignore[return-value]
    if "fp16" in (asked, given):  # what a training is repeated in, or the environment's
        return "fp16" if no_fp16 is None else "fp32"
    old = device.type == "cuda" and not has_bfloat16(device)
    # Ranks on GPUs of two kinds: all compute as the older ones can.
    narrow: Settled = "fp16" if _any(old, world) else "bf16"
    if narrow == "fp16" and no_fp16 is not None:
        log.info("precision: fp32 (%s has no bf16, and no fp16: %s)", _device_name(device), no_fp16)
        return "fp32"
    if asked == "bf16" and narrow == "fp16":
        log.warning(
            "precision: fp16 with scaled losses, not bf16, which %s only emulates",
            _device_name(device),
        )
        return narrow
    speed = _speed(networks, one_pass, device, narrow)
    if asked == "bf16":
        if speed < 1:
            log.warning(
                "precision: bf16 is %.2g times as slow as fp32 here; use auto or fp32", 1 / speed
            )
        return "bf16"
    chosen: Settled = "fp32" if _any(speed < WORTH, world) else narrow
    scaled = ", with scaled losses" if chosen == "fp16" else ""
    log.info("precision: %s (%s is %.2g times as fast here%s)", chosen, narrow, speed, scaled)
    return chosen


def _any(here: bool, world: World) -> bool:
    """Whether it is so on any rank."""
    return bool(world.reduce_sum(torch.tensor([float(here)], device=world.device)) > 0)


def _speed(
    networks: Mapping[str, nn.Module], one_pass: OnePass, device: torch.device, narrow: Settled
) -> float:
    """How many times as fast a pass is in ``narrow``: known to this process, to this node, or
    measured."""
    key = _key(networks, device, narrow)
    if key not in _known:
        kept = _folder() / f"{key}.json"
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            _known[key] = float(json.loads(kept.read_text())["speed"])
        if key not in _known:
            _known[key] = _measured(networks, one_pass, device, narrow)
            body = {"speed": round(_known[key], 4), "device": _device_name(device)}
            with contextlib.suppress(OSError):  # then the next process looks again
                private_folder(kept.parent)
                write_whole(kept, json.dumps(body).encode())
    return _known[key]


def hopeless(device: torch.device) -> bool:
    """Whether bfloat16 is so slow here that a network need not be tried: a moment's measurement."""
    if device.type == "cuda":
        return not has_bfloat16(device)
    with torch.random.fork_rng([]):
        return _ratio(_product(device), device, torch.bfloat16, 0.2) < 1 / HOPELESS


def _measured(
    networks: Mapping[str, nn.Module], one_pass: OnePass, device: torch.device, narrow: Settled
) -> float:
    on_gpu, dtype = device.type == "cuda", DTYPES[narrow]
    with torch.random.fork_rng([device] if on_gpu else []):  # it leaves no trace in the training
        if not on_gpu and (speed := _ratio(_product(device), device, dtype, 0.2)) < 1 / HOPELESS:
            return speed
        run = one_pass({name: copy.deepcopy(module) for name, module in networks.items()})
        return _ratio(run, device, dtype, BUDGET_S)


def _product(device: torch.device) -> Callable[[], object]:
    """33 MFLOP: half a millisecond in float32 on one core."""
    a, b = (torch.rand(256, 256, device=device) for _ in range(2))
    return lambda: a @ b


def _ratio(
    run: Callable[[], Any], device: torch.device, dtype: torch.dtype, budget_s: float
) -> float:
    """Median over neighbouring pairs, in turns, of time in float32 over time in ``dtype``."""
    began, ratios = time.perf_counter(), []
    for turn in range(ROUNDS + 1):
        order = (False, True) if turn % 2 else (True, False)
        seconds = {narrow: _seconds(run, device, dtype, narrow) for narrow in order}
        ratios.append(seconds[False] / max(seconds[True], 1e-9))
        if time.perf_counter() - began > budget_s:
            break
    return median(ratios[1:] or ratios)  # the first of several made kernels


def _seconds(
    run: Callable[[], Any], device: torch.device, dtype: torch.dtype, narrow: bool
) -> float:
    """Of the processor, which other processes disturb least; on a GPU on the wall."""
    on_gpu = device.type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    if on_gpu:
        torch.cuda.synchronize(device)
    began = clock()
    with torch.autocast(device.type, dtype, enabled=narrow):
        run()
    if on_gpu:
        torch.cuda.synchronize(device)
    return clock() - began


def _key(networks: Mapping[str, nn.Module], device: torch.device, narrow: Settled) -> str:
    """Of the architecture, the device, torch and its threads, and what is compared."""
    shapes = [
        (name, type(module).__name__, [list(p.shape) for p in module.state_dict().values()])
        for name, module in networks.items()
    ]
    facts = [shapes, _device_name(device), torch.__version__, torch.get_num_threads(), narrow]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_processor()} {torch.backends.cpu.get_cpu_capability()}"


def _processor() -> str:
    """The line of /proc/cpuinfo that tells what a processor can do; its flags."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return hashlib.sha256(line.encode()).hexdigest()[:12]
    return "cpu"


def _folder() -> Path:
    """On the node's own disk: a home may be shared by nodes of many kinds."""
    return Path(tempfile.gettempdir()) / f"medaug-precision-{os.getuid()}"
