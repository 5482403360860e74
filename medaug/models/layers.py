"""Parts that several generators and discriminators share."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

OutAct = Literal["tanh", "relu", "linear"]
Network = TypeVar("Network", bound=nn.Module)
KERAS_MOMENTUM = 0.01
"""Keras's batch-norm momentum .99 in torch's convention (the weight of the new batch)."""
KERAS_EPS = 1e-3


class DiscriminatorOut(NamedTuple):
    """What every discriminator of this package returns; heads it has not are None."""

    adv: Tensor
    """(N,) logits: real if > 0 (an unbounded critic value for Wasserstein losses)."""
    cls: Tensor | None = None
    """(N, K) class logits, or (N, 2K) for ADC-GAN: K of 'real of class k', K of 'fake of k'."""
    codes: Tensor | None = None
    """(N, n_codes) means of InfoGAN's Q(code | x)."""


class PartedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm for a batch of ``parts`` equal batches laid end to end (real, then fake).

    In training each part is normalised by its own statistics and moves the running ones in turn,
    so that one joint pass of a discriminator equals its separate passes on real and fake exactly
    (with joint statistics it does not: real rows would be normalised by fake ones).
    """

    takes_parts = True

    def forward(self, input: Tensor, parts: int = 1) -> Tensor:
        if parts == 1 or not self.training:
            return super().forward(input)
        assert input.shape[0] % parts == 0, f"{input.shape[0]} rows are not {parts} equal parts"
        return torch.cat([super(PartedBatchNorm2d, self).forward(x) for x in input.chunk(parts)])


class PartedSequential(nn.Sequential):
    """``nn.Sequential`` that tells its batch norms how many parts the batch has."""

    def forward(self, input: Tensor, parts: int = 1) -> Tensor:
        for layer in self:
            parted = getattr(layer, "takes_parts", False)
            input = layer(input, parts) if parted else layer(input)
        return input


class JointPass(nn.Module):
    """A discriminator on real and then generated rows in one call, each half its own batch.

    One call means one forward pass of the DDP module per backward pass; two of them raise on CUDA
    where buffers change in place (pytorch #175024). Batch norm must not mix the halves: layers
    that can tell them apart do so (:class:`PartedBatchNorm2d`), for others (those converted to
    span ranks) the halves pass one after the other inside the call.
    """

    def __init__(self, discriminator: nn.Module) -> None:
        super().__init__()
        self.discriminator = discriminator
        self.one_by_one = any(
            isinstance(layer, nn.modules.batchnorm._BatchNorm)
            and not isinstance(layer, PartedBatchNorm2d)
            for layer in discriminator.modules()
        )

    def forward(self, x: Tensor, label_N: Tensor, parts: int) -> DiscriminatorOut:
        if not self.one_by_one:
            return self.discriminator(x, label_N, parts)
        halves = zip(x.chunk(parts), label_N.chunk(parts), strict=True)
        outs = zip(*(self.discriminator(*half) for half in halves), strict=True)
        adv, cls, codes = (None if head[0] is None else torch.cat(head) for head in outs)
        assert adv is not None
        return DiscriminatorOut(adv, cls, codes)


class Dropout(nn.Dropout):
    """``nn.Dropout``, nine times as fast on a CPU at probability one half, the published one.

    There torch draws one 32-bit number an element; here each bit of a number is an element's coin.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.p != 0.5 or self.inplace or input.device.type != "cpu":
            return super().forward(input)
        return input * _coins(input).mul_(2)


def _coins(x: Tensor) -> Tensor:
    """0 or 1 with equal probability, in the shape, dtype and layout of ``x``."""
    n = x.numel()
    drawn = torch.empty(-(-n // 64), dtype=torch.int64, device="cpu").random_(-(2**63), None)
    coins = (drawn.view(torch.uint8)[:, None] & _BITS).ne_(0).flatten()[:n].to(x.dtype)
    return coins.as_strided(x.shape, torch.empty_like(x).stride())


_BITS = 2 ** torch.arange(8, dtype=torch.uint8, device="cpu")


def channels_innermost(network: Network) -> Network:
    """``network``, in place, with channels innermost in the memory of its convolutions' weights.

    That is how networks are trained, and part of what a trained one is: kernels for the two
    layouts may round differently, so weights that were read from a file have to lie likewise.
    """
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def one_hot(label_N: Tensor, n_classes: int, dtype: torch.dtype) -> Tensor:
    """(N, n_classes) one-hot rows; unlike ``F.one_hot`` it never reads a value on the host."""
    zeros = torch.zeros(len(label_N), n_classes, dtype=dtype, device=label_N.device)
    return zeros.scatter_(1, label_N[:, None], 1.0)


def conditioned(z_Nnz: Tensor, label_N: Tensor, n_classes: int) -> Tensor:
    """The latent as the generator reads it: first ``n_classes`` entries are the label's one-hot.

    As in gitlimlab/ACGAN-PyTorch, the one-hot *overwrites* noise: of 110 entries and 2 classes,
    108 stay noise.
    """
    return torch.cat((one_hot(label_N, n_classes, z_Nnz.dtype), z_Nnz[:, n_classes:]), dim=1)


def codes_of(z_Nnz: Tensor, n_classes: int, n_codes: int) -> Tensor:
    """InfoGAN's continuous codes (..., n_codes): the latent's entries after the class."""
    return z_Nnz[..., n_classes : n_classes + n_codes]


def out_activation(name: OutAct) -> nn.Module:
    """A generator's last layer; its range has to be that of the scaled training rows."""
    activations = {"tanh": nn.Tanh, "relu": nn.ReLU, "linear": nn.Identity}
    if name not in activations:
        raise ValueError(f"out_act: unknown '{name}'; use tanh, relu or linear")
    return activations[name]()


def init_dcgan(module: nn.Module) -> None:
    """DCGAN's start (Radford et al. 2016): convolutions N(0, .02), batch norm's scale N(1, .02).

    Biases are 0. Linear layers keep torch's default, as in the ACGAN reference code.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(part.weight, 0.0, 0.02)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.weight, 1.0, 0.02)
        elif isinstance(part, nn.Embedding):  # a projection of N(0, 1) would swamp the features
            nn.init.normal_(part.weight, 0.0, 0.02)


def init_keras(module: nn.Module) -> None:
    """Keras's default start, for networks whose papers name none: Glorot uniform, zero bias."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
