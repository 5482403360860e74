"""What the two players of a GAN minimise in one step, as :class:`medaug.spec.gan.GanSpec` says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from medaug.models.layers import DiscriminatorOut, PartedBatchNorm2d, codes_of
from medaug.models.losses import (
    ADVERSARIAL,
    AUXILIARY,
    adc_discriminator,
    adc_generator,
    bce_discriminator,
    code_loss,
    cross_entropy,
    gradient_penalty,
    r1_penalty,
)
from medaug.seeding import generator
from medaug.spec.gan import GanSpec
from medaug.train.world import World

Values = dict[str, Tensor]
"""Name -> scalar, a mean over this rank's rows."""


@dataclass(frozen=True)
class Draws:
    """Random numbers of one step: drawn for the global batch, then cut to this rank's share.

    So two ranks draw what one rank with the same global batch draws.
    """

    seed: int
    step: int
    batch_size: int
    world: World
    part: slice | None = None
    """Of this rank's share: where a batch is taken part by part."""

    def normal(self, what: str, *shape: int) -> Tensor:
        """(n, *shape) float32 from N(0, 1)."""
        return self._share(torch.randn(self.batch_size, *shape, **self._from(what)))

    def uniform(self, what: str) -> Tensor:
        """(n,) float32 from U(0, 1)."""
        return self._share(torch.rand(self.batch_size, **self._from(what)))

    def labels(self, what: str, n_classes: int) -> Tensor:
        """(n,) int64, every class equally likely."""
        return self._share(torch.randint(n_classes, (self.batch_size,), **self._from(what)))

    def _from(self, what: str) -> dict:
        device = self.world.device
        return {"generator": generator(self.seed, what, self.step, device=device), "device": device}

    def _share(self, x: Tensor) -> Tensor:
        mine = x[self.world.share(self.batch_size)]
        return mine if self.part is None else mine[self.part]


@dataclass(frozen=True)
class Turn:
    """This rank's rows of one step, scaled as the networks see them.

    ``fake`` wants a gradient where the generator is to learn from this step.
    """

    real: Tensor
    real_label: Tensor
    fake: Tensor
    fake_label: Tensor
    z: Tensor
    draws: Draws

    def split(self, parts: int) -> list[Turn]:
        """The same rows in ``parts`` turns; their lengths differ by at most one."""
        if parts == 1:
            return [self]
        n = len(self.real)
        slices = [slice(n * i // parts, n * (i + 1) // parts) for i in range(parts)]
        return [
            Turn(
                self.real[s],
                self.real_label[s],
                self.fake[s],
                self.fake_label[s],
                self.z[s],
                replace(self.draws, part=s),
            )
            for s in slices
        ]


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


class Objective:
    """Both players' losses and the numbers worth a curve.

    Args:
        discriminator: the plain one. Penalties run through it, rather than through DDP, which
            would communicate its gradients for nothing.
        teacher: scaled rows -> class logits, frozen: f-CLSWGAN's classifier (Xian et al. 2018,
            eq. 4), whose cross-entropy joins the generator's loss with weight ``aux_weight``.
    """

    def __init__(
        self,
        spec: GanSpec,
        discriminator: nn.Module,
        n_classes: int,
        teacher: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.spec, self.discriminator = spec, discriminator
        self.n_classes, self.teacher = n_classes, teacher
        self.adversarial = ADVERSARIAL[spec.adv]
        if spec.label_smoothing:
            smoothed = partial(bce_discriminator, real_target=1 - spec.label_smoothing)
            self.adversarial = self.adversarial._replace(discriminator=smoothed)

    def rows_to_tell_apart(self, turn: Turn) -> tuple[Tensor, Tensor]:
        """Real rows and then generated ones, as the discriminator sees them, and their labels."""
        real = self._noisy(turn.real, turn, "noise on real")
        fake = self._noisy(turn.fake.detach(), turn, "noise on fake")
        return torch.cat([real, fake]), torch.cat([turn.real_label, turn.fake_label])

    def rows_to_believe(self, turn: Turn) -> Tensor:
        """Generated rows, as the discriminator sees them when the generator learns."""
        return self._noisy(turn.fake, turn, "noise on fake")

    def of_discriminator(self, out: DiscriminatorOut, turn: Turn) -> tuple[Tensor, Values]:
        """Loss of the discriminator, which said ``out`` of :meth:`rows_to_tell_apart`."""
        real_adv, fake_adv = out.adv.chunk(2)
        loss = adversarial = self.adversarial.discriminator(real_adv, fake_adv)
        values = {
            "d_adversarial": adversarial,
            "d_real": real_adv.float().sigmoid().mean(),
            "d_fake": fake_adv.float().sigmoid().mean(),
        }
        if out.cls is not None:
            loss = loss + self.spec.aux_weight * self._class_loss(out.cls, turn)
            labels = torch.cat([turn.real_label, turn.fake_label])
            right = self._right(out, labels).chunk(2)
            values |= {"class_acc_real": right[0].mean(), "class_acc_fake": right[1].mean()}
        if out.codes is not None:
            loss = loss + self.spec.info_weight * self._code_loss(out.codes.chunk(2)[1], turn)
        loss = loss + self._penalty(turn)
        return loss, {"d_loss": loss, **values}

    def of_generator(self, out: DiscriminatorOut, turn: Turn) -> tuple[Tensor, Values]:
        """Loss of the generator: the discriminator said ``out`` of :meth:`rows_to_believe`."""
        loss = self.adversarial.generator(out.adv)
        if out.cls is not None:
            adc = self.spec.cond == "adc"
            of_class = adc_generator if adc else AUXILIARY[self.spec.aux_loss]
            loss = loss + self.spec.aux_weight * of_class(out.cls, turn.fake_label)
        if self.teacher is not None:
            of_teacher = cross_entropy(self.teacher(turn.fake.float()), turn.fake_label)
            loss = loss + self.spec.aux_weight * of_teacher
        if out.codes is not None:
            loss = loss + self.spec.info_weight * self._code_loss(out.codes, turn)
        return loss, {"g_loss": loss}

    def _class_loss(self, cls: Tensor, turn: Turn) -> Tensor:
        real, fake = cls.chunk(2)
        if self.spec.cond == "adc":
            return adc_discriminator(real, turn.real_label, fake, turn.fake_label)
        of_class = AUXILIARY[self.spec.aux_loss]
        loss = of_class(real, turn.real_label)
        return loss + of_class(fake, turn.fake_label) if self.spec.aux_on_fake else loss

    def _right(self, out: DiscriminatorOut, labels: Tensor) -> Tensor:
        class_logits: Callable[..., Tensor] = self.discriminator.class_logits  # type: ignore[assignment]
        return (class_logits(out).argmax(1) == labels).float()

    def _code_loss(self, predicted: Tensor, turn: Turn) -> Tensor:
        return code_loss(predicted, codes_of(turn.z, self.n_classes, predicted.shape[1]))

    def _penalty(self, turn: Turn) -> Tensor | float:
        weight = self.spec.penalty_weight
        with torch.autocast(turn.real.device.type, enabled=False):
            if self.spec.adv == "wgan_gp":
                between = turn.draws.uniform("mix")
                real, fake = turn.real.float(), turn.fake.float()
                critic = self._critic(turn.fake_label)
                return weight * gradient_penalty(critic, real, fake, between)
            if self.spec.adv == "r1":
                return weight * r1_penalty(self._critic(turn.real_label), turn.real.float())
        return 0.0

    def _critic(self, label: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda x: self.discriminator(x, label).adv

    def _noisy(self, x: Tensor, turn: Turn, what: str) -> Tensor:
        if not self.spec.inst_noise:
            return x
        noise = turn.draws.normal(what, *x.shape[1:])
        return x + (self.spec.inst_noise * noise).to(x.dtype)
