"""One training step of an ACGAN as the public implementation takes it: what ours is measured by.

Our own rewrite of the loop of gitlimlab/ACGAN-PyTorch (``main.py``) on the networks of this
package: real and generated rows pass the discriminator apart, the generator's step computes the
discriminator's gradients and throws them away, class and source losses are taken of probabilities,
statistics are read on the host in every step, everything is float32 in NCHW, Adam is not fused.
Works for pairs without a class head (the DCGANs) too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ReferenceStep:
    """Trains ``generator`` and ``discriminator`` (a ``DiscriminatorOut``) one batch at a time."""

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        n_classes: int,
        *,
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.5, 0.999),
    ) -> None:
        self.generator, self.discriminator = generator, discriminator
        self.n_classes = n_classes
        self.source_loss, self.class_loss = nn.BCELoss(), nn.NLLLoss()
        self.adam_d = torch.optim.Adam(discriminator.parameters(), lr=lr, betas=betas)
        self.adam_g = torch.optim.Adam(generator.parameters(), lr=lr, betas=betas)
        self.sums = [0.0] * 6
        self.steps = 0

    def __call__(
        self,
        x_NCHW: Tensor,
        label_N: Tensor,
        z: Tensor | None = None,
        fake_label: Tensor | None = None,
    ) -> dict[str, float]:
        """One step of both players; means of its statistics so far. Draws what is not given."""
        n, device = len(x_NCHW), x_NCHW.device
        real_target = torch.ones(n, device=device)
        fake_target = torch.zeros(n, device=device)

        self.discriminator.zero_grad()
        real_loss, d_x, accuracy = self._judge(x_NCHW, label_N, real_target)
        real_loss.backward()
        if z is None or fake_label is None:
            z = torch.randn(n, self.generator.nz, device=device)  # type: ignore[arg-type]
            fake_label = torch.randint(self.n_classes, (n,), device=device)
        fake = self.generator(z, fake_label)
        fake_loss, d_g_z1, _ = self._judge(fake.detach(), fake_label, fake_target)
        fake_loss.backward()
        self.adam_d.step()

        self.generator.zero_grad()
        g_loss, d_g_z2, _ = self._judge(fake, fake_label, real_target)
        g_loss.backward()
        self.adam_g.step()

        self.steps += 1
        now = [(real_loss + fake_loss).item(), g_loss.item(), d_x, d_g_z1, d_g_z2, accuracy]
        self.sums = [total + value for total, value in zip(self.sums, now, strict=True)]
        names = ("d_loss", "g_loss", "d_x", "d_g_z1", "d_g_z2", "accuracy")
        return {k: v / self.steps for k, v in zip(names, self.sums, strict=True)}

    def _judge(self, x: Tensor, label: Tensor, target: Tensor) -> tuple[Tensor, float, float]:
        """Loss, mean probability of being real, and class accuracy in percent."""
        out = self.discriminator(x, label)
        source = out.adv.sigmoid()
        loss = self.source_loss(source, target)
        accuracy = 0.0
        if out.cls is not None:
            probability = out.cls.softmax(1)
            loss = loss + self.class_loss(probability, label)  # sic: of probabilities
            right = probability.argmax(1).eq(label).cpu().sum()
            accuracy = 100.0 * right.item() / len(label)
        return loss, source.mean().item(), accuracy
