"""``precision: auto``: bfloat16 where this node is faster with it, found by looking.

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

Settled = Literal["fp32", "bf16"]

OVERRIDE = "MEDAUG_PRECISION"
"""Environment: ``fp32`` or ``bf16`` answers for ``auto`` without a measurement."""
WORTH = 1.1
"""Bfloat16 has to be so many times as fast; it rounds to 8 bits, which should buy something."""
HOPELESS = 3.0
"""A product of matrices that is so many times as slow ends the measurement at once."""
BUDGET_S = 1.0
ROUNDS = 5

OnePass = Callable[[dict[str, nn.Module]], Callable[[], None]]

_known: dict[str, float] = {}
"""Of this process: key of a measurement -> how many times as fast bfloat16 is."""


def settle(
    asked: str, networks: Mapping[str, nn.Module], one_pass: OnePass, world: World, facts: dict
) -> Settled:
    """What ``asked`` (auto, fp32 or bf16) means here, the same on every rank.

    Args:
        networks: what is going to be trained; copies of them are timed.
        one_pass: copies -> something to call, which runs forward and backward once.
        facts: of the training (:class:`medaug.train.loop.Training`): an answer that is in it is
            kept, a new one is put in.
    """
    chosen: Settled | None = facts.get("precision")
    if chosen is None:
        chosen = _choose(asked, networks, one_pass, world)
        facts["precision"] = chosen
    return chosen


def _choose(
    asked: str, networks: Mapping[str, nn.Module], one_pass: OnePass, world: World
) -> Settled:
    if asked == "fp32":
        return "fp32"
    if asked == "auto" and (given := os.environ.get(OVERRIDE)) in ("fp32", "bf16"):
        return given  # type: ignore[return-value]
    speed = _speed(networks, one_pass, world.device)
    if asked == "bf16":
        if world.device.type == "cuda" and not has_bfloat16(world.device):
            log.warning(
                "precision: %s only emulates bf16; use auto or fp32", _device_name(world.device)
            )
        elif speed < 1:
            log.warning(
                "precision: bf16 is %.2g times as slow as fp32 here; use auto or fp32", 1 / speed
            )
        return "bf16"
    # Ranks on nodes of two kinds: all take bfloat16, or none does.
    votes = world.reduce_sum(torch.tensor([float(speed >= WORTH)], device=world.device))
    chosen: Settled = "bf16" if int(votes) == world.size else "fp32"
    if world.device.type == "cuda" and not has_bfloat16(world.device):
        log.info("precision: %s (%s has no bf16)", chosen, _device_name(world.device))
    else:
        log.info("precision: %s (bf16 is %.2g times as fast here)", chosen, speed)
    return chosen


def _speed(networks: Mapping[str, nn.Module], one_pass: OnePass, device: torch.device) -> float:
    """How many times as fast a pass is in bfloat16: of this process, of this node, or measured."""
    key = _key(networks, device)
    if key not in _known:
        kept = _folder() / f"{key}.json"
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            _known[key] = float(json.loads(kept.read_text())["speed"])
        if key not in _known:
            _known[key] = _measured(networks, one_pass, device)
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
        return _ratio(_product(device), device, 0.2) < 1 / HOPELESS


def _measured(networks: Mapping[str, nn.Module], one_pass: OnePass, device: torch.device) -> float:
    on_gpu = device.type == "cuda"
    if on_gpu and not has_bfloat16(device):
        return 1 / HOPELESS
    with torch.random.fork_rng([device] if on_gpu else []):  # it leaves no trace in the training
        if not on_gpu and (speed := _ratio(_product(device), device, 0.2)) < 1 / HOPELESS:
            return speed
        run = one_pass({name: copy.deepcopy(module) for name, module in networks.items()})
        return _ratio(run, device, BUDGET_S)


def _product(device: torch.device) -> Callable[[], object]:
    """33 MFLOP: half a millisecond in float32 on one core."""
    a, b = (torch.rand(256, 256, device=device) for _ in range(2))
    return lambda: a @ b


def _ratio(run: Callable[[], Any], device: torch.device, budget_s: float) -> float:
    """Median over neighbouring pairs, in turns, of time in float32 over time in bfloat16."""
    began, ratios = time.perf_counter(), []
    for turn in range(ROUNDS + 1):
        order = (False, True) if turn % 2 else (True, False)
        seconds = {narrow: _seconds(run, device, narrow) for narrow in order}
        ratios.append(seconds[False] / max(seconds[True], 1e-9))
        if time.perf_counter() - began > budget_s:
            break
    return median(ratios[1:] or ratios)  # the first of several made kernels


def _seconds(run: Callable[[], Any], device: torch.device, narrow: bool) -> float:
    """Of the processor, which other processes disturb least; on a GPU on the wall."""
    on_gpu = device.type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    if on_gpu:
        torch.cuda.synchronize(device)
    began = clock()
    with torch.autocast(device.type, torch.bfloat16, enabled=narrow):
        run()
    if on_gpu:
        torch.cuda.synchronize(device)
    return clock() - began


def _key(networks: Mapping[str, nn.Module], device: torch.device) -> str:
    """Of the architecture, the device, torch and its threads."""
    shapes = [
        (name, type(module).__name__, [list(p.shape) for p in module.state_dict().values()])
        for name, module in networks.items()
    ]
    facts = [shapes, _device_name(device), torch.__version__, torch.get_num_threads()]
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
