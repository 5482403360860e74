"""Who am I among the ranks: one immutable value, and what has to be summed across ranks.

Training is the same code on one rank and on many. A global batch is dealt in contiguous shares
(:meth:`World.share`), gradients are averaged by DDP (:func:`distribute`), BatchNorm sees the whole
global batch (:func:`convert_batchnorm`); so N ranks compute what one rank computes, to rounding.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from medaug.errors import UserError
from medaug.train.pace import PACE

NCCL_GRACE_S = 30.0
BUCKET_BYTES = 25 << 20
"""``bucket_cap_mb`` of DistributedDataParallel; before it goes a first bucket of 1 MiB."""


@dataclass(frozen=True)
class World:
    """Rank facts. ``local_rank`` counts within the node; ``device`` is where this rank computes."""

    rank: int
    size: int
    local_rank: int
    device: torch.device
    step_graphs: Literal["auto", "always", "never"] = "auto"
    """See :attr:`medaug.spec.resources.ResourceSpec.step_graphs`."""

    @staticmethod
    def single(device: str | torch.device = "cpu") -> World:
        """One process, no process group."""
        return World(0, 1, 0, torch.device(device))

    @staticmethod
    def from_env(timeout_s: float = 120.0) -> World:
        """The world that ``torchrun`` describes in the environment; one process without it.

        Joins the process group on first use. A collective that waits longer than ``timeout_s``
        raises on every rank (the default of torch is 30 minutes).
        """
        local_rank = int(os.environ.get("LOCAL_RANK", 0))
        device = torch.device("cuda", local_rank) if torch.cuda.is_available() else "cpu"
        size = int(os.environ.get("WORLD_SIZE", 1))
        if size == 1:
            return World.single(device)
        return init_group(
            rank=int(os.environ["RANK"]),
            size=size,
            master_addr=os.environ["MASTER_ADDR"],
            master_port=int(os.environ["MASTER_PORT"]),
            timeout_s=timeout_s,
            device=device,
            local_rank=local_rank,
        )

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def share(self, n: int) -> slice:
        """This rank's contiguous part of ``n`` things; parts differ by at most one."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def reduce_sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum over ranks, on every rank; the input is left as it is. No gradient flows."""
        if self.size == 1:
            return tensor
        total = tensor.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """Concatenation along the first axis in rank order, on every rank.

        Lengths may differ (also be 0); the other axes and the dtype may not.
        """
        if self.size == 1:
            return tensor
        lengths = torch.zeros(self.size, dtype=torch.int64, device=self.device)
        lengths[self.rank] = len(tensor)
        dist.all_reduce(lengths)
        sizes = lengths.tolist()
        padded = tensor.new_zeros(max(sizes), *tensor.shape[1:])
        padded[: len(tensor)] = tensor.detach()
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([part[:n] for part, n in zip(parts, sizes, strict=True)])

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()


def init_group(
    rank: int,
    size: int,
    master_addr: str,
    master_port: int,
    timeout_s: float,
    device: str | torch.device = "cpu",
    local_rank: int = 0,
    store: dist.Store | None = None,
) -> World:
    """Join the process group (NCCL on CUDA, gloo on CPU) and return this rank's world.

    A process that is in a group already (a reused actor) stays in it if rank and size agree.
    Between hosts, gloo needs ``GLOO_SOCKET_IFNAME`` in the environment: the caller sets it.
    ``store``: where the ranks find each other, if they have it already.
    """
    device = torch.device(device)
    if size == 1:
        return World(0, 1, local_rank, device)
    if not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            init_method=f"tcp://{master_addr}:{master_port}" if store is None else None,
            store=store,
            rank=rank,
            world_size=size,
            # NCCL's watchdog ends the process without a word: whoever watches the ranks is first.
            timeout=timedelta(seconds=timeout_s + (NCCL_GRACE_S if device.type == "cuda" else 0)),
        )
    assert (dist.get_rank(), dist.get_world_size()) == (rank, size)
    return World(rank, size, local_rank, device)


def leave_group() -> None:
    """Leave the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def check_batch_size(batch_size: int, world: World, field: str) -> None:
    """Every rank needs a row of every global batch: raises UserError naming ``field``."""
    if batch_size < world.size:
        raise UserError(
            f"{field}: a global batch of {batch_size} cannot feed {world.size} ranks; "
            f"set it to {world.size} or more, or lower resources.ranks"
        )


def distribute(module: nn.Module, world: World, **ddp: Any) -> nn.Module:
    """``module`` on the rank's device, its gradients averaged over ranks by DDP when size > 1.

    BatchNorm layers are expected to be converted before (:func:`convert_batchnorm`), so that
    every rank computes the same running statistics and no buffer needs a broadcast.
    """
    module = module.to(world.device)
    if world.size == 1:
        return module
    options: dict[str, Any] = {
        "gradient_as_bucket_view": True,
        "forward_sync_buffers": False,
        **ddp,
    }
    if world.device.type == "cuda":
        options["device_ids"] = [world.device]
    wrapped = DistributedDataParallel(module, **options)
    wrapped.register_forward_hook(lambda *_: PACE.forwarded())
    return wrapped


def in_one_bucket(module: nn.Module) -> bool:
    """Whether ranks exchange all gradients of ``module`` together, at the end of a backward pass.

    DDP sends them in buckets as they come, while the pass goes on; the smaller ones of a small
    network's last bucket wait for the others in any case.
    """
    return sum(p.numel() * p.element_size() for p in module.parameters()) <= BUCKET_BYTES


def convert_batchnorm(module: nn.Module, world: World) -> nn.Module:
    """``module`` with every BatchNorm computing over the global batch; names stay the same.

    CUDA uses ``nn.SyncBatchNorm``, which raises on CPU; there :class:`AllReduceBatchNorm` does it.
    """
    if world.size == 1:
        return module
    if world.device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return AllReduceBatchNorm.of(module)
    for name, child in module.named_children():
        setattr(module, name, convert_batchnorm(child, world))
    return module


class AllReduceBatchNorm(nn.modules.batchnorm._BatchNorm):
    """BatchNorm over the rows of all ranks, for CPU: x (N, C, *) float; shares may be uneven."""

    @classmethod
    def of(cls, norm: nn.modules.batchnorm._BatchNorm) -> AllReduceBatchNorm:
        """One that shares the parameters and buffers of ``norm``."""
        new = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        new._parameters, new._buffers, new.training = norm._parameters, norm._buffers, norm.training
        return new

    def _check_input_dim(self, input: torch.Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"BatchNorm wants (N, C, *), got {input.dim()} axes")

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        self._check_input_dim(input)
        if not self.training:
            return super().forward(input)
        y, mean, variance, n = _GlobalNorm.apply(input, self.weight, self.bias, self.eps)
        if self.running_mean is not None and self.running_var is not None:
            assert self.num_batches_tracked is not None
            self.num_batches_tracked += 1
            momentum = self.momentum
            if momentum is None:  # a cumulative average, as in torch
                momentum = 1.0 / float(self.num_batches_tracked)
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(variance * (n / (n - 1)), momentum)
        return y


class _GlobalNorm(torch.autograd.Function):
    """Normalisation by the global batch: one collective forward and one backward.

    Rank statistics are merged by the parallel update of Chan, Golub & LeVeque (1983), eq. 2.1,
    which does not cancel as E[x²] − E[x]² does. The backward pass is that of Ioffe & Szegedy
    (2015), sec. 3, with both batch means taken over all ranks.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: Any, bias: Any, eps: float) -> Any:
        axes, shape = _batch_axes(x)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        local_variance, local_mean = torch.var_mean(wide, axes, correction=0)
        count = torch.full_like(local_mean, x.numel() / x.shape[1])
        mine = torch.stack([count, local_mean, local_variance])
        parts = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
        with PACE.waiting():
            dist.all_gather(parts, mine)
        counts, means, variances = torch.stack(parts, 1)
        n = counts.sum(0)
        mean = (counts * means).sum(0) / n
        variance = (counts * (variances + (means - mean).square())).sum(0) / n
        scale = torch.rsqrt(variance + eps)
        normal = (wide - mean.view(shape)) * scale.view(shape)
        ctx.save_for_backward(normal, weight, scale, n)
        ctx.mark_non_differentiable(mean, variance, n)
        y = (
            normal
            if weight is None
            else torch.addcmul(bias.view(shape), normal, weight.view(shape))
        )
        return y.to(x.dtype), mean, variance, n

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        normal, weight, scale, n = ctx.saved_tensors
        gradient = gradients[0].to(normal.dtype)
        axes, shape = _batch_axes(normal)
        mine = torch.stack([gradient.sum(axes), (gradient * normal).sum(axes)])
        total = mine.clone()
        dist.all_reduce(total)
        mean_g, mean_gn = (total / n).unbind(0)
        if weight is not None:
            scale = scale * weight
        centred = gradient - mean_g.view(shape) - normal * mean_gn.view(shape)
        to_x = (centred * scale.view(shape)).to(gradients[0].dtype)
        # The parameters' gradients stay local: DDP averages them like all others.
        to_bias, to_weight = (None, None) if weight is None else mine.unbind(0)
        return to_x, to_weight, to_bias, None


def _batch_axes(x: torch.Tensor) -> tuple[list[int], tuple[int, ...]]:
    """The axes that BatchNorm averages over, and the shape that broadcasts (C,) over ``x``."""
    return [0, *range(2, x.dim())], (1, -1, *[1] * (x.dim() - 2))
