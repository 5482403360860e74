"""Training the U-Net of study A: slices and masks in, the epoch with the best validation IoU out.

Loss and selection are those of the study (NETWORKS 1.1), with validation patients where it used
its test set: soft Dice over the whole batch, Adam, best epoch by hard IoU at 0.5.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from medaug.data.augment import augment
from medaug.data.normalisation import Normalisation
from medaug.errors import UserError
from medaug.models.layers import channels_innermost
from medaug.models.losses import dice_loss_of, dice_terms
from medaug.models.unet import UNet
from medaug.seeding import seed_of
from medaug.spec.study import DiceSpec, SegmenterSpec
from medaug.store import Batch, Store
from medaug.store.sampler import Order, epoch_batches
from medaug.train.adam import FusedAdam
from medaug.train.checkpoint import Checkpoint, Progress
from medaug.train.loop import Guard, Statistics, Training, run_epochs
from medaug.train.precision import autocast, settle
from medaug.train.resident import ResidentRows, Sender, epoch_rows
from medaug.train.world import World, check_batch_size, distribute

log = logging.getLogger(__name__)

PROBED_SIDE = 96
"""Of the image on which the two precisions are compared."""
READ_ROWS = 64
STUCK = 0.995
"""A soft Dice loss on validation slices above this is that of a network that finds nothing."""


@dataclass(frozen=True)
class Segmenter:
    """A trained U-Net: the weights of its best epoch, on every rank."""

    weights: dict[str, torch.Tensor]
    best_epoch: int
    """Counted from 1."""
    scores: dict[str, float]
    """Metrics of that epoch."""
    history: list[dict[str, float]]
    precision: str
    """What it was trained in: fp32 or bf16."""


def train_segmenter(
    spec: SegmenterSpec,
    train: Store,
    val: Store,
    normalisation: Normalisation,
    world: World,
    seed: int,
    *,
    initial: Mapping[str, torch.Tensor] | None = None,
    resume: Checkpoint | None = None,
    epochs: int | None = None,
    lr: float | None = None,
) -> Iterator[Progress]:
    """Train on ``train``, validate on ``val``; the last Progress carries a :class:`Segmenter`.

    Stores hold raw slices (1, S, S) with masks (S, S). ``initial`` are weights to start from;
    ``epochs`` and ``lr`` stand in for those of ``spec`` (pre-training has its own). Metrics per
    epoch: ``train/loss``, and those of :func:`validate`.

    Raises:
        UserError: no rows, no masks, or a global batch smaller than the number of ranks.
        Diverged: see :class:`medaug.train.loop.Guard`.
    """
    for name, store in (("train", train), ("val", val)):
        if len(store) == 0 or store.schema.mask_shape is None:
            raise UserError(f"segmenter: the {name} slices need rows with masks; check the split")
    run = Run(spec, train, val, normalisation, world, seed, initial, lr or spec.lr, resume)
    yield from run_epochs(
        run.training, world, seed, epochs or spec.epochs, run.one_epoch, run.finish
    )


class Run:
    """One training of one U-Net."""

    def __init__(
        self,
        spec: SegmenterSpec,
        train: Store,
        val: Store,
        normalisation: Normalisation,
        world: World,
        seed: int,
        initial: Mapping[str, torch.Tensor] | None,
        lr: float,
        resume: Checkpoint | None = None,
    ) -> None:
        self.spec, self.train, self.val, self.normalisation = spec, train, val, normalisation
        self.world, self.seed = world, seed
        self.batch_size = min(spec.batch_size, len(train))
        check_batch_size(self.batch_size, world, "segmenter.batch_size")
        torch.manual_seed(seed_of(seed, "unet"))
        unet = UNet(train.schema.shape[0], spec.base, init=spec.init)
        self.pretrained = initial is not None
        if initial is not None:
            unet.load_state_dict(initial)
        self.unet = channels_innermost(unet)
        self.model = distribute(self.unet, world)
        # Betas are torch's: the reference code sets beta1 = .9 and leaves the other at .999.
        self.optimizer = FusedAdam(self.unet.parameters(), lr=lr)
        self.training = Training({"unet": self.unet}, {"adam": self.optimizer}, Guard(world))
        if resume is not None:
            self.training.restore(resume)
        self._settle_precision()
        self.kept = self._kept_rows() if train.schema.mask_shape is not None else None

    def _settle_precision(self) -> None:
        """The configuration's ``auto`` becomes what is faster here, or what was begun with."""
        channels, height, width = self.train.schema.shape
        side = max(16, min(PROBED_SIDE, height, width) // 16 * 16)

        def one_pass(copies: dict[str, nn.Module]) -> Callable[[], None]:
            x = torch.randn(1, channels, side, side, device=self.world.device)
            x = x.contiguous(memory_format=torch.channels_last)
            return lambda: copies["unet"](x).float().square().mean().backward()

        facts, networks = self.training.facts, {"unet": self.unet}
        precision = settle(self.spec.precision, networks, one_pass, self.world, facts)
        self.spec = self.spec.model_copy(update={"precision": precision})
        self.training.scale_losses(precision)

    def one_epoch(self, epoch: int) -> dict[str, float]:
        statistics = Statistics(self.world)
        for x, mask, rows in self._batches(epoch):
            statistics.add("train/loss", *self.learn(*self._augmented(x, mask, rows, epoch)))
        metrics = statistics.means()
        metrics |= validate(self.unet, self.val, self.spec, self.normalisation, self.world)
        facts = self.training.facts
        if metrics["val/iou"] > facts.get("best_iou", -1.0):
            facts |= {"best_iou": metrics["val/iou"], "best_epoch": epoch + 1}
            weights = self.unet.state_dict()
            self.training.extra = {k: v.detach().clone() for k, v in weights.items()}
        if not self.pretrained and metrics["val/loss"] > STUCK and facts.get("restarts", 0) < 3:
            self._restart()
        return metrics

    def learn(self, x: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, int, torch.Tensor]:
        """One step: its loss, that of one batch, and whether it was skipped."""
        with autocast(self.world, self.spec.precision):
            logits = self.model(normalise(x, self.normalisation))
        loss = batch_loss(logits, mask, self.spec.dice, self.batch_size, self.world)
        self.optimizer.zero_grad(set_to_none=True)
        self.training.backward(loss, "adam")
        skipped = self.training.move("adam")
        self.training.step += 1
        return loss, 1, skipped

    def _restart(self) -> None:
        """Other starting weights: with these the network calls everything background.

        There the Dice loss is 1 and flat, and nothing leads out (the reference code's README says
        to start again by hand). Decided from metrics that all ranks share, so they stay alike.
        """
        facts = self.training.facts
        facts["restarts"] = facts.get("restarts", 0) + 1
        torch.manual_seed(seed_of(self.seed, "unet", facts["restarts"]))
        fresh = UNet(self.train.schema.shape[0], self.spec.base, init=self.spec.init)
        self.unet.load_state_dict(fresh.state_dict())
        self.optimizer.state.clear()
        log.warning("the U-Net found nothing (Dice loss 1): started again with other weights")

    def finish(self) -> Segmenter:
        best: int = self.training.facts["best_epoch"]
        weights = {name: tensor.cpu() for name, tensor in self.training.extra.items()}
        history = self.training.history
        return Segmenter(weights, best, history[best - 1], history, self.spec.precision)

    def _batches(self, epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor, list[int]]]:
        """This rank's raw images, masks and row numbers, from the device if they fit there."""
        order: Order = {"seed": self.seed, "epoch": epoch}
        if self.kept is None:
            send = Sender(self.world.device)
            for batch in self.train.batches(self.world, self.batch_size, **order):
                assert batch.mask is not None
                x, mask = send(batch.x, batch.mask)
                yield x.float(), mask[:, None], batch.row.tolist()
            return
        images, masks, numbers = self.kept
        plan = epoch_batches(len(self.train), self.batch_size, **order)
        share = self.world.share(self.batch_size)
        for rows, mine in zip(plan, epoch_rows(plan, share, self.world.device), strict=True):
            yield (
                images.take(mine).float(),
                masks.take(mine)[:, None],
                numbers[rows[share]].tolist(),
            )

    def _kept_rows(self) -> tuple[ResidentRows, ResidentRows, np.ndarray] | None:
        """Images, masks and row numbers, where they fit on the device."""
        device, n, numbers = self.world.device, len(self.train), []

        def batches() -> Iterator[Batch]:
            return self.train.batches(
                World.single(), READ_ROWS, seed=0, epoch=0, shuffle=False, drop_last=False
            )

        images = ResidentRows.of((batch.x for batch in batches()), n, device)
        if images is None:
            return None

        def masks() -> Iterator[torch.Tensor]:
            for batch in batches():
                assert batch.mask is not None
                numbers.append(batch.row.numpy().copy())
                yield batch.mask

        kept_masks = ResidentRows.of(masks(), n, device)
        return None if kept_masks is None else (images, kept_masks, np.concatenate(numbers))

    def _augmented(
        self, x: torch.Tensor, mask: torch.Tensor, rows: list[int], epoch: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Raw images (n, C, S, S) and masks (n, 1, S, S), both transformed alike."""
        if self.spec.augment is None:
            return x, mask
        seeds = [seed_of(self.seed, "augment", epoch, row) for row in rows]
        # Before normalisation, where 0, with which it fills, is air.
        x, moved = augment(x, mask[:, 0], self.spec.augment, seeds)
        assert moved is not None
        return x, moved[:, None]


def _to_device(batch: Batch, world: World) -> tuple[torch.Tensor, torch.Tensor]:
    """Raw images (n, C, S, S) float32 and masks (n, 1, S, S) uint8."""
    assert batch.mask is not None
    return batch.x.to(world.device, torch.float32), batch.mask[:, None].to(world.device)


def normalise(x_NCHW: torch.Tensor, normalisation: Normalisation) -> torch.Tensor:
    """Raw intensities to zero mean and unit deviation of each channel, float32, channels last."""
    x = x_NCHW.float()
    mean, std = (
        value if isinstance(value, float | int) else x.new_tensor(value).view(1, -1, 1, 1)
        for value in normalisation
    )
    return ((x - mean) / std).contiguous(memory_format=torch.channels_last)


def batch_loss(
    logits: torch.Tensor, mask: torch.Tensor, dice: DiceSpec, batch_size: int, world: World
) -> torch.Tensor:
    """This rank's part of the soft Dice loss of a global batch of ``batch_size`` images.

    The mean over ranks, of value and (by DDP) of gradient, is that of one rank with all images.
    """
    terms = dice_terms(logits.float().sigmoid(), mask, squared=dice.squared, per=dice.per)
    if dice.per == "image":
        return dice_loss_of(terms) * (len(mask) * world.size / batch_size)
    # A ratio of sums over all ranks: those of the others are constants here. DDP divides the
    # gradient by the number of ranks, which the second term makes good without changing the value.
    loss = dice_loss_of(terms + (world.reduce_sum(terms.detach()) - terms.detach()))
    return loss + (world.size - 1) * (loss - loss.detach())


@torch.inference_mode()
def validate(
    unet: UNet, val: Store, spec: SegmenterSpec, normalisation: Normalisation, world: World
) -> dict[str, float]:
    """Metrics of all slices of ``val``, each read once; equal on every rank.

    ``val/loss``: soft Dice loss, one Dice over all slices. ``val/dice``, ``val/iou``: hard, at
    probability 0.5, pooled over all slices (so a false tumour on an empty slice counts).
    ``val/dice_tumour``, ``val/iou_tumour``: averaged over the slices that have a tumour, if any.
    """
    soft, hard = [], []
    for batch in val.batches(
        world, spec.batch_size, seed=0, epoch=0, shuffle=False, drop_last=False
    ):
        x, mask = _to_device(batch, world)
        with autocast(world, spec.precision):
            logits = unet(normalise(x, normalisation))
        soft.append(dice_terms(logits.float().sigmoid(), mask, squared=spec.dice.squared))
        predicted, true = (logits > 0).flatten(1), (mask > 0).flatten(1)
        hard.append(torch.stack([(predicted & true).sum(1), predicted.sum(1), true.sum(1)], 1))
    terms = world.reduce_sum(torch.stack(soft).sum(0))
    both, predicted, true = world.gather(torch.cat(hard)).double().unbind(1)
    metrics = {
        "val/loss": dice_loss_of(terms),
        "val/dice": _ratio(2 * both.sum(), (predicted + true).sum()),
        "val/iou": _ratio(both.sum(), (predicted + true - both).sum()),
    }
    if (tumour := true > 0).any():
        metrics["val/dice_tumour"] = (2 * both / (predicted + true))[tumour].mean()
        metrics["val/iou_tumour"] = (both / (predicted + true - both))[tumour].mean()
    return {name: float(value) for name, value in metrics.items()}


def _ratio(some: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """``some / whole``; 1 when both are 0 (nothing to find, nothing found)."""
    return torch.where(whole > 0, some / whole, 1.0)
