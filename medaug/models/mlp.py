"""Small networks for rows that are vectors: pooled features or PCA scores of d dimensions.

A conditional WGAN-GP pair after f-CLSWGAN (Xian et al. 2018) and the velocity field of a flow
matching model (Lipman et al. 2023). On few patients these are the arms that the large generators
have to beat.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from medaug.models.layers import DiscriminatorOut, OutAct, conditioned, one_hot, out_activation


class MlpGenerator(nn.Module):
    """Latent (N, nz) and label (N,) to (N, dim): two hidden layers, LeakyReLU (.2).

    The latent's first ``n_classes`` entries are overwritten by the label's one-hot, as for the
    ACGAN. ``out_act`` is linear by default (standardised rows); f-CLSWGAN's is relu.
    """

    def __init__(
        self,
        dim: int,
        n_classes: int,
        nz: int = 64,
        hidden: int = 256,
        out_act: OutAct = "linear",
    ) -> None:
        super().__init__()
        if nz <= n_classes:
            raise ValueError(f"nz: {nz} leaves no noise beside {n_classes} classes; raise nz")
        self.n_classes = n_classes
        self.nz = nz
        self.layers = nn.Sequential(*_leaky_mlp(nz, hidden, dim), out_activation(out_act))

    def forward(self, z_Nnz: Tensor, label_N: Tensor) -> Tensor:
        return self.layers(conditioned(z_Nnz, label_N, self.n_classes))


class MlpCritic(nn.Module):
    """Rows (N, dim) and label (N,) to critic values; the label joins the row as one-hot.

    It has no batch norm, so that ``parts`` (see ``PartedBatchNorm2d``) changes nothing.
    """

    def __init__(self, dim: int, n_classes: int, hidden: int = 256) -> None:
        super().__init__()
        self.n_classes = n_classes
        self.layers = nn.Sequential(*_leaky_mlp(dim + n_classes, hidden, 1))

    def forward(self, x_ND: Tensor, label_N: Tensor, parts: int = 1) -> DiscriminatorOut:
        labelled = torch.cat((x_ND, one_hot(label_N, self.n_classes, x_ND.dtype)), dim=1)
        return DiscriminatorOut(self.layers(labelled).squeeze(1))


class VelocityMlp(nn.Module):
    """Velocity field v(x, t, class) (N, dim) for flow matching.

    Pre-norm residual blocks; time (Fourier features) and class are embedded, summed and scale and
    shift each block's norm (adaptive layer norm, Peebles and Xie 2023). The blocks and the output
    start at zero: the first velocity is 0 everywhere.

    Label ``n_classes`` means "no class": train some rows with it for classifier-free guidance
    (Ho and Salimans 2022).
    """

    def __init__(
        self, dim: int, n_classes: int, hidden: int = 256, depth: int = 3, frequencies: int = 32
    ) -> None:
        super().__init__()
        # From half a turn over t in [0, 1] to fifty turns, evenly in the logarithm.
        omega = math.pi * torch.logspace(0, 2, frequencies)
        self.register_buffer("omega", omega, persistent=False)
        self.omega: Tensor
        self.time = nn.Sequential(nn.Linear(2 * frequencies, hidden), nn.SiLU())
        self.label = nn.Embedding(n_classes + 1, hidden)
        self.enter = nn.Linear(dim, hidden)
        self.blocks = nn.ModuleList(_ResidualBlock(hidden) for _ in range(depth))
        self.leave = nn.Sequential(nn.LayerNorm(hidden), _zero(nn.Linear(hidden, dim)))

    def forward(self, x_ND: Tensor, t_N: Tensor, label_N: Tensor) -> Tensor:
        """``t_N`` (N,) in [0, 1], 0 at the noise; ``label_N`` (N,) in [0, n_classes]."""
        angle = t_N[:, None] * self.omega
        context = self.time(torch.cat((angle.sin(), angle.cos()), dim=1)) + self.label(label_N)
        h = self.enter(x_ND)
        for block in self.blocks:
            h = block(h, context)
        return self.leave(h)


class _ResidualBlock(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden, elementwise_affine=False)
        self.modulate = nn.Linear(hidden, 2 * hidden)
        self.layers = nn.Sequential(
            nn.Linear(hidden, hidden), nn.SiLU(), _zero(nn.Linear(hidden, hidden))
        )

    def forward(self, h: Tensor, context: Tensor) -> Tensor:
        scale, shift = self.modulate(context).chunk(2, dim=1)
        return h + self.layers(self.norm(h) * (1 + scale) + shift)


def _leaky_mlp(n_in: int, hidden: int, n_out: int) -> list[nn.Module]:
    return [
        nn.Linear(n_in, hidden),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Linear(hidden, hidden),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Linear(hidden, n_out),
    ]


def _zero(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
