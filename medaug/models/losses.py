"""Losses as pure functions of tensors, in float32 whatever the network ran in.

Every batch loss is a plain mean over rows, so that the mean of equal ranks is the loss of the
global batch. Dice is not one (a ratio of sums); :func:`dice_terms` gives the sums to be reduced.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# --- Segmentation ---------------------------------------------------------------------------


def dice_terms(
    probability: Tensor,
    mask: Tensor,
    *,
    squared: bool = True,
    per: Literal["batch", "image"] = "batch",
) -> Tensor:
    """Numerator and denominator of the soft Dice coefficient: (2,), or (2, N) per image.

    Args:
        probability: (N, C, H, W) in [0, 1].
        mask: same shape, 0 or 1, any dtype.
        squared: the denominator sums squares, as in V-Net (Milletari et al. 2016) and in the
            reference code of study A ("jaccard"); study A's eq. (3) prints it without.
        per: one Dice per ``batch``, as that code computes it, or per ``image``.
    """
    if per not in ("batch", "image"):
        raise ValueError(f"segmenter.dice.per: unknown '{per}'; use batch or image")
    p, m = probability.float(), mask.to(torch.float32)
    axes = tuple(range(0 if per == "batch" else 1, p.ndim))
    power = 2 if squared else 1
    return torch.stack((2 * (p * m).sum(axes), (p**power).sum(axes) + (m**power).sum(axes)))


def dice_loss_of(terms: Tensor, smooth: float = 1e-5) -> Tensor:
    """1 - Dice of :func:`dice_terms`, averaged over images if those are per image.

    ``smooth`` is the reference code's; it makes the Dice of an empty mask, well predicted, 1.
    """
    return 1 - ((terms[0] + smooth) / (terms[1] + smooth)).mean()


def soft_dice_loss(
    probability: Tensor,
    mask: Tensor,
    *,
    squared: bool = True,
    per: Literal["batch", "image"] = "batch",
    smooth: float = 1e-5,
) -> Tensor:
    """Soft Dice loss of study A (arguments: see :func:`dice_terms`)."""
    return dice_loss_of(dice_terms(probability, mask, squared=squared, per=per), smooth)


# --- Real or fake ---------------------------------------------------------------------------


def bce_discriminator(real: Tensor, fake: Tensor, real_target: float = 1.0) -> Tensor:
    """Sum of the two cross-entropies (Goodfellow et al. 2014) of logits (..., N).

    ``real_target`` .9 is one-sided label smoothing (Salimans et al. 2016).
    """
    target = torch.full_like(real, real_target, dtype=torch.float32)
    on_real = F.binary_cross_entropy_with_logits(real.float(), target, reduction="none")
    return on_real.mean(-1) + F.softplus(fake.float()).mean(-1)


def bce_generator(fake: Tensor) -> Tensor:
    """The non-saturating loss -log D(G(z))."""
    return F.softplus(-fake.float()).mean(-1)


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Hinge loss (Lim and Ye 2017; Miyato et al. 2018): rows beyond the margin do not count."""
    return F.relu(torch.stack((1 - real.float(), 1 + fake.float()))).mean(-1).sum(0)


def critic_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Minus the Wasserstein critic's gap (Arjovsky et al. 2017)."""
    return fake.float().mean(-1) - real.float().mean(-1)


def critic_generator(fake: Tensor) -> Tensor:
    """Raise the critic's value of the fakes; also the generator's side of the hinge loss."""
    return -fake.float().mean(-1)


class AdversarialLoss(NamedTuple):
    """The two players' losses of discriminator outputs (..., N): a mean over the last axis."""

    discriminator: Callable[[Tensor, Tensor], Tensor]
    """(real, fake) -> (...)"""
    generator: Callable[[Tensor], Tensor]
    """(fake) -> (...)"""


ADVERSARIAL = {
    "bce": AdversarialLoss(bce_discriminator, bce_generator),
    "hinge": AdversarialLoss(hinge_discriminator, critic_generator),
    "wgan_gp": AdversarialLoss(critic_discriminator, critic_generator),
    "r1": AdversarialLoss(bce_discriminator, bce_generator),
}
"""``wgan_gp`` and ``r1`` also want their penalty, on the discriminator's step alone."""


def gradient_penalty(
    critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, mix_N: Tensor
) -> Tensor:
    """WGAN-GP's mean (|grad critic| - 1)^2 (Gulrajani et al. 2017, eq. 3), without its factor 10.

    Args:
        critic: rows -> values (N,); without batch norm, which would mix the rows' gradients.
        real, fake: (N, ...) rows; no gradient flows into them.
        mix_N: (N,) uniform in [0, 1): where between fake (0) and real (1) each row lies.
    """
    mix = mix_N.to(real.dtype).view(-1, *(1,) * (real.ndim - 1))
    between = torch.lerp(fake.detach(), real.detach(), mix).requires_grad_()
    return (_input_gradient(critic, between).norm(dim=1) - 1).square().mean()


def r1_penalty(critic: Callable[[Tensor], Tensor], real: Tensor) -> Tensor:
    """R1's mean |grad critic|^2 / 2 on real rows (Mescheder et al. 2018, eq. 9), without gamma."""
    return _input_gradient(critic, real.detach().requires_grad_()).square().sum(1).mean() / 2


def _input_gradient(critic: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Gradient (N, D) of each row's value, differentiable in the critic's weights."""
    (gradient,) = torch.autograd.grad(critic(x).float().sum(), x, create_graph=True)
    return gradient.flatten(1).float()


# --- Class ----------------------------------------------------------------------------------


def nll_on_prob(logits: Tensor, label: Tensor) -> Tensor:
    """Study A's inherited bug: ``NLLLoss`` fed probabilities instead of logarithms, -p_y.

    In [-1, 0]; its gradient p (1 - p) vanishes where the network is confidently wrong. Kept to
    reproduce the paper.
    """
    probability = logits.float().softmax(dim=-1)
    return -probability.gather(-1, label[..., None]).squeeze(-1).mean(-1)


def cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """-log p_y, averaged over rows."""
    rows = F.cross_entropy(logits.float().flatten(0, -2), label.flatten(), reduction="none")
    return rows.view(label.shape).mean(-1)


AUXILIARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "ce": cross_entropy,
    "nll_on_prob": nll_on_prob,
}
"""Losses of the ACGAN's class head: (logits (..., N, K), label (..., N)) -> (...)."""


def adc_discriminator(real: Tensor, real_label: Tensor, fake: Tensor, fake_label: Tensor) -> Tensor:
    """ADC-GAN's class loss (Hou et al. 2022) of (..., N, 2K) logits: real rows of class k are k,
    fake ones K + k."""
    n_classes = real.shape[-1] // 2
    return cross_entropy(real, real_label) + cross_entropy(fake, fake_label + n_classes)


def adc_generator(fake: Tensor, label: Tensor) -> Tensor:
    """ADC-GAN's generator side: log p(fake of y | x) - log p(real of y | x), averaged."""
    real_of, fake_of = fake.float().chunk(2, dim=-1)
    return (fake_of - real_of).gather(-1, label[..., None]).squeeze(-1).mean(-1)


def code_loss(predicted: Tensor, codes: Tensor) -> Tensor:
    """InfoGAN's -log Q(c | x) for a unit-variance Gaussian Q, without its constant: (..., N, n)
    means against the codes drawn; summed over codes, averaged over rows (Chen et al. 2016)."""
    return 0.5 * (predicted.float() - codes.float()).square().sum(-1).mean(-1)


def focal_loss(
    logits: Tensor, label: Tensor, *, gamma: float = 0.0, class_weight: Tensor | None = None
) -> Tensor:
    """Focal loss -w_y (1 - p_y)^gamma log p_y (Lin et al. 2017), averaged over rows.

    ``gamma`` 0 is cross-entropy. Unlike ``F.cross_entropy`` it divides by the number of rows, not
    by their total weight, which differs between ranks.

    Args:
        logits: (N, K); see ``classifiers.class_logits`` for one-logit networks.
        label: (N,) int64.
        class_weight: (K,) or None for ones.
    """
    log_p = F.log_softmax(logits.float(), dim=1).gather(1, label[:, None]).squeeze(1)
    loss = -log_p
    if gamma:  # 1 - p rounds to 0, where a power below 1 has no derivative: hence the floor
        loss = loss * (-torch.expm1(log_p)).clamp_min(1e-12) ** gamma
    return (loss if class_weight is None else loss * class_weight[label]).mean()
