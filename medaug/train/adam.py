"""Adam in one kernel, for weights in any layout."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class FusedAdam(torch.optim.Adam):
    """``torch.optim.Adam(fused=True)``, whose kernel on the CPU reads memory as it lies there.

    It copies weights with channels innermost first, which costs twice what it does itself, and is
    silently wrong where a weight and its gradient lie differently (torch 2.13). So it is shown
    views whose memory is in order. Its state is that of torch's Adam.
    """

    def __init__(self, parameters: Iterable[Tensor], **keys: Any) -> None:
        given = list(parameters)
        # On a GPU a step may be captured as a graph, so its count is a tensor there.
        on_gpu = any(parameter.device.type == "cuda" for parameter in given)
        super().__init__(given, fused=True, capturable=on_gpu, **keys)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Torch's, and moments lie as their weights do, however they were written. Whether a step
        may be captured is settled by where it is taken, not by where it was saved."""
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            group["capturable"] = self.defaults["capturable"]
        for parameter, state in self.state.items():
            for name, moment in state.items():
                if moment.shape == parameter.shape:
                    state[name] = _lying_as(parameter, moment)

    def _init_group(self, group: dict[str, Any], *lists: list[Tensor]) -> bool:
        has_complex: bool = super()._init_group(group, *lists)
        parameters, gradients, *moments, _, _ = lists
        for i, parameter in enumerate(parameters):
            if parameter.device.type == "cpu":
                gradients[i] = _lying_as(parameter, gradients[i])
                for tensors in (parameters, gradients, *moments):
                    tensors[i] = _in_order(tensors[i])
        return has_complex


def _lying_as(parameter: Tensor, x: Tensor) -> Tensor:
    same = x.stride() == parameter.stride()
    return x if same else torch.empty_like(parameter, dtype=x.dtype).detach().copy_(x)


def _in_order(x: Tensor) -> Tensor:
    """A contiguous view, its axes sorted by stride."""
    return x.detach().permute(sorted(range(x.ndim), key=x.stride, reverse=True))
