"""``torch.compile`` for networks in training, where that is of use."""

from __future__ import annotations

import logging

import torch
from torch import nn

from medaug.train.world import World

log = logging.getLogger(__name__)

COMPILED_ON = ("cuda",)


def compile_for(world: World, how: str, *networks: nn.Module) -> None:
    """``torch.compile`` the networks in place, as ``how`` (none, default, cuda_graphs) says."""
    if how == "none":
        return
    if world.device.type not in COMPILED_ON:
        log.warning("compile: %s is for GPUs and there is none: training as without it", how)
        return
    for network in networks:
        network.compile(mode="reduce-overhead" if how == "cuda_graphs" else "default")


def forget_compiled() -> None:
    """Drop what earlier trainings of this process have compiled.

    Each training compiles the same code for weights of its own, and after eight of them torch
    gives up and runs eagerly for the rest of the process (dynamo's recompile limit).
    """
    torch.compiler.reset()
