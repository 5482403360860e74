"""The exponential moving average of networks' weights, and batch norm under it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from medaug.models.foreach import copy_, lerp_


@torch.no_grad()
def follow(averages: Sequence[nn.Module], networks: Sequence[nn.Module], decay: float) -> None:
    """Move all weights and running statistics of each average a share 1 - decay to its network's.

    ``averages`` may be empty: then there is nothing to do.
    """
    moving: list[tuple[Tensor, Tensor]] = []
    counts: list[tuple[Tensor, Tensor]] = []  # how many batches batch norm has seen
    for average, network in zip(averages, networks, strict=bool(averages)):
        # Not state_dict: building one takes a third of a small network's step.
        for pair in zip(_tensors(average), _tensors(network), strict=True):
            (moving if pair[0].is_floating_point() else counts).append(pair)
    if moving:
        lerp_([target for target, _ in moving], [source for _, source in moving], 1 - decay)
    if counts:
        copy_([target for target, _ in counts], [source for _, source in counts])


def _tensors(network: nn.Module) -> Iterator[Tensor]:
    yield from network.parameters()
    yield from network.buffers()


@torch.no_grad()
def settle_batchnorm(
    network: nn.Module, forward: Callable[[Tensor], object], batches: Iterable[Tensor]
) -> None:
    """Take batch norm's statistics anew: their means over ``batches`` under the present weights.

    Averages of the statistics that single steps had are those of other weights (Izmailov et al.
    2018, 3.2), and Keras's momentum of .99 has forgotten its start only after hundreds of steps.
    Dropout is off, as when the network is used. ``batches`` are not read where there is no norm.
    """
    network.eval()
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for number, x in enumerate(batches if norms else (), 1):
        for norm in norms:
            norm.train()
            norm.momentum = 1 / number  # the mean over batches
        forward(x)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
