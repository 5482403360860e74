"""Small checkpoints whose content is a function of their epoch."""

from __future__ import annotations

import torch

from medaug.train.checkpoint import Checkpoint

KEY = "0123456789ab"


def checkpoint(epoch: int, size: int = 16) -> Checkpoint:
    weight = torch.randn(size, 4, generator=torch.Generator().manual_seed(epoch))
    state = {
        "optimizers": {"adam": {"state": {0: {"exp_avg": weight * 2, "step": torch.tensor(3.0)}}}},
        "history": [{"loss": 0.5}],
        "note": None,
    }
    return Checkpoint(epoch, 10 * epoch, {"net.weight": weight, "net.t": weight.t()}, state)
