"""The exponential moving average of networks' weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medaug.models.foreach import copy_, lerp_


@torch.no_grad()
def follow(averages: Sequence[nn.Module], networks: Sequence[nn.Module], decay: float) -> None:
    """Move all weights and running statistics of each average a share 1 - decay to its network's.

    ``averages`` may be empty: then there is nothing to do.
    """
    moving: list[tuple[Tensor, Tensor]] = []
    counts: list[tuple[Tensor, Tensor]] = []  # how many batches batch norm has seen
    for average, network in zip(averages, networks, strict=bool(averages)):
        source = network.state_dict()
        for name, tensor in average.state_dict().items():
            (moving if tensor.is_floating_point() else counts).append((tensor, source[name]))
    if moving:
        lerp_([target for target, _ in moving], [source for _, source in moving], 1 - decay)
    if counts:
        copy_([target for target, _ in counts], [source for _, source in counts])
