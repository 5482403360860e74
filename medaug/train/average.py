"""The exponential moving average of a network's weights."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move every weight and running statistic of ``average`` a share 1 - decay to ``network``'s."""
    target, source = average.state_dict(), network.state_dict()
    moving = [name for name, tensor in target.items() if tensor.is_floating_point()]
    torch._foreach_lerp_([target[k] for k in moving], [source[k] for k in moving], 1 - decay)
    for name in target.keys() - moving:  # how many batches batch norm has seen
        target[name].copy_(source[name])
