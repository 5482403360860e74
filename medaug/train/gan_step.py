"""One step of a GAN, or of several replicates of one that share every pass; read it downwards.

A step makes generated rows, then moves the players in turn: the discriminator, and every
``n_critic`` steps the generator. The generator learns from the same generated rows that the
discriminator has just seen, as in the reference code of study A, which saves a pass.

Rows of K replicates lie end to end, (K*n, …), and a loss is (K,), one number a replicate; K is 1
but for fused replicates.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils.parametrize import ParametrizationList

from medaug.models.at_once import AtOnce
from medaug.models.foreach import copy_
from medaug.models.fused import drawing_from, fuse
from medaug.models.layers import DiscriminatorOut, JointPass, codes_of
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
from medaug.spec.gan import GanSpec
from medaug.train.average import follow
from medaug.train.compiled import compile_for
from medaug.train.draws import Draws
from medaug.train.few_data import LECAM_DECAY, adapted, augmented, lecam
from medaug.train.gan_batch import GanBatch, StepDraw, StepInput, in_turn, joined
from medaug.train.loop import Training, guarded_steps
from medaug.train.precision import autocast
from medaug.train.tally import ClassSpread, Tally
from medaug.train.world import World, distribute, in_one_bucket

Kept = Callable[[str], Tensor]
"""Name -> the (K,) numbers of that name that go from step to step."""


class Replicate(Protocol):
    """One GAN in training (:class:`medaug.train.gan_run.Replicate`)."""

    generator: nn.Module
    discriminator: nn.Module
    training: Training
    teacher: Callable[[Tensor], Tensor] | None
    masks: torch.Generator
    """What dropout draws from where passes are shared."""

    @property
    def resident(self) -> bool:
        """Whether its training rows lie on the device."""
        ...

    def batch(self, drawn: StepDraw) -> GanBatch:
        """The rows that were drawn, on the device."""
        ...


class GanStep:
    """Moves both players of ``replicates``; several need equal batches and one rank."""

    def __init__(
        self,
        spec: GanSpec,
        replicates: Sequence[Replicate],
        n_classes: int,
        world: World,
        *,
        fused: bool,
    ) -> None:
        self.spec, self.replicates, self.n_classes = spec, tuple(replicates), n_classes
        self.world, self.fused = world, fused
        self.discriminators = [each.discriminator for each in replicates]
        self.generators = [each.generator for each in replicates]
        generate, self.discriminate = self.generators[0], self.discriminators[0]
        if fused:
            assert world.size == 1
            masks = [each.masks for each in replicates]
            generate = fuse(self.generators, masks)
            self.discriminate = fuse(self.discriminators, masks)
        else:
            generate, self.discriminate = (
                AtOnce(each) if world.size == 1 or in_one_bucket(each) else each
                for each in (generate, self.discriminate)
            )
        compile_for(world, spec.compile, generate, self.discriminate)
        self.generate = distribute(generate, world)
        self.judge_both = distribute(JointPass(self.discriminate), world)
        self.adversarial = ADVERSARIAL[spec.adv]
        if spec.label_smoothing:
            smoothed = partial(bce_discriminator, real_target=1 - spec.label_smoothing)
            self.adversarial = self.adversarial._replace(discriminator=smoothed)
        self._shares: dict[float, Tensor] = {}
        self.tallies = {"discriminator": Tally(world), "generator": Tally(world)}
        self.spread = ClassSpread(n_classes, len(self.replicates), world)

    def begin_epoch(self) -> None:
        """Statistics start anew."""
        for tally in self.tallies.values():
            tally.clear()
        self.spread.clear()

    def take(self, drawn: Sequence[StepDraw]) -> None:
        """One step from what was drawn for each replicate; the caller counts it."""
        batches = [each.batch(draw) for each, draw in zip(self.replicates, drawn, strict=True)]
        rows = self.make_rows(batches)
        self.discriminator_step(rows)
        if self.generator_is_due:
            self.generator_step(rows)
        self.spread.add(rows.both, rows.both_labels, self.skipped)

    @property
    def generator_is_due(self) -> bool:
        """Replicates that share a step are at the same point of ``n_critic``."""
        return (self.replicates[0].training.step + 1) % self.spec.n_critic == 0

    def make_rows(self, batches: Sequence[GanBatch]) -> StepInput:
        """Generated rows beside the real ones. The generator's graph waits for its own step: it is
        walked once, however many parts the discriminator's batch has."""
        columns = zip(*((b.real, b.real_label, b.fake_label, b.z) for b in batches), strict=True)
        real, real_label, fake_label, z = map(joined, columns)
        due = self.generator_is_due
        with torch.set_grad_enabled(due), autocast(self.world, self.spec.precision):
            self.made = self.generate(z, fake_label).to(real.dtype)
        fake = self.made.detach().requires_grad_(due)
        return StepInput(real, real_label, fake, fake_label, z, tuple(b.draws for b in batches))

    def discriminator_step(self, rows: StepInput) -> None:
        """The discriminators learn to tell real rows from generated ones."""
        self._zero_gradients("discriminator")
        seen, judged = [], []
        with contextlib.closing(self._parts(rows)) as parts:
            for part in parts:
                with autocast(self.world, self.spec.precision):
                    x, label = discriminator_inputs(self.spec, part, self._kept)
                    out = self.judge_both(x, label, 2)
                    loss, values = self.discriminator_loss(out, part)
                loss.backward(self._share(part, loss, "discriminator"))
                seen.append((values, part.rows))
                judged.append(out.adv.detach().view(len(part.draws), 2, -1))
        self._move("discriminator", seen)
        self._adapt(judged)

    def generator_step(self, rows: StepInput) -> None:
        """The generators learn to be believed, by discriminators that stay as they are."""
        self._zero_gradients("generator")
        seen = []
        with frozen(self.discriminators), contextlib.closing(self._parts(rows)) as parts:
            for part in parts:
                with autocast(self.world, self.spec.precision):
                    x = seen_rows(self.spec, part.fake, part.draws, "fake", self._kept)
                    out = self.discriminate(x, part.fake_label)
                    loss, values = self.generator_loss(out, part)
                loss.backward(self._share(part, loss, "generator"))
                seen.append((values, part.rows))
        self.made.backward(rows.fake.grad)
        self._move("generator", seen)
        averages = [each.training.modules.get("average") for each in self.replicates]
        follow([a for a in averages if a is not None], self.generators, self.spec.ema)

    def discriminator_loss(
        self, out: DiscriminatorOut, rows: StepInput
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss (K,), and numbers worth a curve, of what discriminators said of
        :func:`discriminator_inputs`."""
        k, n = len(rows.draws), rows.rows
        adv = out.adv.float().view(k, 2, n)
        real_adv, fake_adv = adv.unbind(1)
        loss = adversarial = self.adversarial.discriminator(real_adv, fake_adv)
        believed = adv.sigmoid().mean(-1)
        values = {
            "d_adversarial": adversarial,
            "d_real": believed[:, 0],
            "d_fake": believed[:, 1],
        }
        if out.cls is not None:
            label, cls = rows.both_labels.view(k, 2, n), out.cls.view(k, 2, n, -1)
            if self.spec.cond == "adc":
                of_class = adc_discriminator(cls[:, 0], label[:, 0], cls[:, 1], label[:, 1])
            else:
                class_loss = AUXILIARY[self.spec.aux_loss]
                if self.spec.aux_on_fake:
                    of_class = class_loss(cls, label).sum(1)
                else:
                    of_class = class_loss(cls[:, 0], label[:, 0])
            loss = loss.add(of_class, alpha=self.spec.aux_weight)
            class_logits: Callable[..., Tensor] = self.discriminators[0].class_logits  # type: ignore[assignment]
            right = class_logits(out).argmax(1).view(k, 2, n) == label
            accuracy = right.mean(-1, dtype=torch.float32)
            values |= {"class_acc_real": accuracy[:, 0], "class_acc_fake": accuracy[:, 1]}
        if out.codes is not None:
            told = out.codes.view(k, 2, n, -1)[:, 1]
            loss = loss + self.spec.info_weight * self._code_loss(told, rows)
        if self.spec.lecam:
            anchors = self._kept("lecam_real"), self._kept("lecam_fake")
            loss = loss + self.spec.lecam * lecam(real_adv, fake_adv, *anchors)
        if self.spec.has_penalty:
            loss = loss + self.spec.penalty_weight * self._penalty(rows)
        return loss, {"d_loss": loss, **values}

    def generator_loss(
        self, out: DiscriminatorOut, rows: StepInput
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss (K,) of generators whose rows discriminators said ``out`` of."""
        k, n = len(rows.draws), rows.rows
        label = rows.fake_label.view(k, n)
        loss = self.adversarial.generator(out.adv.view(k, n))
        if out.cls is not None:
            adc = self.spec.cond == "adc"
            class_loss = adc_generator if adc else AUXILIARY[self.spec.aux_loss]
            of_class = class_loss(out.cls.view(k, n, -1), label)
            loss = loss.add(of_class, alpha=self.spec.aux_weight)
        teachers = [each.teacher for each in self.replicates]
        if teachers[0] is not None:
            # f-CLSWGAN's frozen classifier (Xian et al. 2018, eq. 4).
            parts = zip(teachers, rows.fake.float().chunk(k), strict=True)
            told = torch.stack([teacher(x) for teacher, x in parts if teacher is not None])
            loss = loss + self.spec.aux_weight * cross_entropy(told, label)
        if out.codes is not None:
            told = out.codes.view(k, n, -1)
            loss = loss + self.spec.info_weight * self._code_loss(told, rows)
        return loss, {"g_loss": loss}

    def _code_loss(self, told: Tensor, rows: StepInput) -> Tensor:
        z = rows.z.view(len(told), rows.rows, -1)
        return code_loss(told, codes_of(z, self.n_classes, told.shape[-1]))

    def _penalty(self, rows: StepInput) -> Tensor:
        """(K,). It runs through the plain discriminators: DDP would communicate their gradients
        for nothing, and a second derivative of a fused pass is no cheaper."""
        k = len(rows.draws)
        columns = (rows.real, rows.real_label, rows.fake, rows.fake_label)
        each = zip(self.replicates, rows.draws, *(x.chunk(k) for x in columns), strict=True)
        penalties = []
        with torch.autocast(self.world.device.type, enabled=False):
            for replicate, draws, *tensors in each:
                # The pair's own dropout draws once more.
                masks = drawing_from(replicate.masks) if self.fused else contextlib.nullcontext()
                with masks:
                    penalties.append(self._penalty_of(replicate.discriminator, draws, *tensors))
        return torch.stack(penalties)

    def _penalty_of(
        self,
        discriminator: nn.Module,
        draws: Draws,
        real: Tensor,
        real_label: Tensor,
        fake: Tensor,
        fake_label: Tensor,
    ) -> Tensor:
        if self.spec.adv == "r1":
            return r1_penalty(lambda x: discriminator(x, real_label).adv, real.float())
        mix = draws.uniform("mix")
        critic = lambda x: discriminator(x, fake_label).adv  # noqa: E731
        return gradient_penalty(critic, real.float(), fake.float(), mix)

    def _kept(self, name: str) -> Tensor:
        """(K,) numbers that change from step to step and go into the checkpoints."""
        return torch.stack([each.training.extra[name] for each in self.replicates])

    def _adapt(self, judged: Sequence[Tensor]) -> None:
        """After a discriminator's step, which gave logits (K, 2, n) in parts: how often to augment,
        and LeCam's running means."""
        ada, wants_lecam = self.spec.d_aug == "ada", bool(self.spec.lecam)
        if not (ada or wants_lecam):
            return
        adv = torch.cat(list(judged), -1).float()
        means = torch.stack([adv[:, 0].sign().mean(-1), *adv.mean(-1).unbind(1)])
        # One mean for all ranks, which have to change alike.
        sign, real, fake = self.world.reduce_sum(means) / self.world.size
        after = {}
        if ada:
            after["ada"] = adapted(self._kept("ada"), sign, adv.shape[-1] * self.world.size)
        if wants_lecam:
            for name, mean in (("lecam_real", real), ("lecam_fake", fake)):
                after[name] = torch.lerp(self._kept(name), mean, 1 - LECAM_DECAY)
        for name, values in after.items():
            copy_([each.training.extra[name] for each in self.replicates], values.unbind())

    def _zero_gradients(self, player: str) -> None:
        for each in self.replicates:
            each.training.optimizers[player].zero_grad(set_to_none=True)

    def _move(self, player: str, seen: Sequence[tuple[dict[str, Tensor], int]]) -> None:
        """Optimisers step where gradients are finite; what was ``seen`` joins the statistics."""
        trainings = [each.training for each in self.replicates]
        pairs = [(t.guard, t.optimizers[player]) for t in trainings]
        self.skipped = guarded_steps(pairs, self._scalers(player))
        for values, n in seen:
            self.tallies[player].add(values, n, self.skipped)

    def _share(self, part: StepInput, loss: Tensor, player: str) -> Tensor:
        """(K,) of ``loss``: DDP averages over ranks; shares of a global batch may differ by a
        row. In fp16 times each replicate's scale."""
        share = part.rows * self.world.size / part.draws[0].batch_size
        if share not in self._shares:
            self._shares[share] = torch.full_like(loss, share)
        if not (scalers := self._scalers(player)):
            return self._shares[share]
        each = zip(scalers, self._shares[share].unbind(), strict=True)
        return torch.stack([scaler.scale(one) for scaler, one in each])

    def _scalers(self, player: str) -> list[GradScaler]:
        trainings = [each.training for each in self.replicates]
        return [t.scalers[player] for t in trainings if t.scalers]

    def _parts(self, rows: StepInput) -> Generator[StepInput]:
        """The parts of a batch; DDP waits for the last, spectral norm estimates at the first.

        To be closed, also where a step ends by an error: one whose recording fails is then taken
        eagerly.
        """
        parts = rows.split(self.spec.accumulate)
        held: list[nn.Module] = []
        if len(parts) > 1:
            modules = (m for network in self.discriminators for m in network.modules())
            held = [m for m in modules if isinstance(m, ParametrizationList)]
        try:
            for i, part in enumerate(parts):
                in_silence: contextlib.AbstractContextManager = contextlib.nullcontext()
                if i + 1 < len(parts) and isinstance(self.judge_both, DistributedDataParallel):
                    in_silence = self.judge_both.no_sync()
                with in_silence:
                    yield part
                for parametrizations in held:
                    parametrizations.eval()  # all parts of a batch see the same weights
        finally:
            for parametrizations in held:
                parametrizations.train()


@contextlib.contextmanager
def frozen(networks: Sequence[nn.Module]) -> Iterator[None]:
    """Within it the weights of ``networks`` want no gradient."""
    for network in networks:
        network.requires_grad_(False)
    try:
        yield
    finally:
        for network in networks:
            network.requires_grad_(True)


def discriminator_inputs(spec: GanSpec, rows: StepInput, kept: Kept) -> tuple[Tensor, Tensor]:
    """(x, label) of a discriminator's step: each replicate's real rows, then its generated ones."""
    if spec.d_aug == "none" and not spec.inst_noise:
        return rows.both, rows.both_labels
    real = seen_rows(spec, rows.real, rows.draws, "real", kept)
    fake = seen_rows(spec, rows.fake.detach(), rows.draws, "fake", kept)
    return in_turn(real, fake, len(rows.draws)), rows.both_labels


def seen_rows(spec: GanSpec, x: Tensor, draws: Sequence[Draws], side: str, kept: Kept) -> Tensor:
    """Rows as a discriminator sees them: augmented with the probability that is ``kept``, with
    instance noise (Sonderby et al. 2017), where the configuration wants that. ``side``: real or
    fake."""
    if spec.d_aug != "none":
        x = augmented(x, kept("ada"), draws, f"augment {side}")
    if spec.inst_noise:
        noise = joined([each.normal(f"noise on {side}", *x.shape[1:]) for each in draws])
        x = x + (spec.inst_noise * noise).to(x.dtype)
    return x
