from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from medaug.errors import UserError
from medaug.models.losses import soft_dice_loss
from medaug.models.unet import UNet
from medaug.spec.study import AugmentSpec, DiceSpec, SegmenterSpec
from medaug.store import Store
from medaug.train.checkpoint import Ledger, Progress
from medaug.train.segment import Segmenter, batch_loss, train_segmenter, validate
from medaug.train.world import World
from tests.train.cohorts import features, slices

NORMALISATION = (110.0, 35.0)


def spec(**changes: Any) -> SegmenterSpec:
    settings: dict[str, Any] = {
        "base": 4, "init": "kaiming", "epochs": 3, "lr": 1e-3, "batch_size": 6, "pretrain": None,
    }  # fmt: skip
    return SegmenterSpec.model_validate(settings | changes)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("slices")
    slices(folder / "train", 4)
    slices(folder / "val", 2, seed=1)
    return folder / "train", folder / "val"


def run(
    world: World, cohort: tuple[Path, Path], settings: SegmenterSpec, **options: Any
) -> list[Progress]:
    train, val = map(Store.open, cohort)
    return list(train_segmenter(settings, train, val, NORMALISATION, world, 3, **options))


def test_finds_the_disc_in_new_images(cohort: tuple[Path, Path]) -> None:
    progress = run(World.single(), cohort, spec(epochs=8, lr=1e-2))
    assert progress[-1].metrics["val/dice"] > 0.9
    assert progress[-1].metrics["train/loss"] < 0.15 < progress[0].metrics["train/loss"]


def test_the_result_is_the_epoch_with_the_best_validation_iou(cohort: tuple[Path, Path]) -> None:
    settings = spec(epochs=8, lr=1e-2)
    progress = run(World.single(), cohort, settings)
    found = progress[-1].result
    assert isinstance(found, Segmenter)
    ious = [p.metrics["val/iou"] for p in progress]
    assert found.best_epoch == 1 + ious.index(max(ious)) != len(ious)
    assert found.history == [p.metrics for p in progress]
    assert found.scores == progress[found.best_epoch - 1].metrics
    unet = UNet(1, 4)
    unet.load_state_dict(found.weights)
    again = validate(unet, Store.open(cohort[1]), settings, NORMALISATION, World.single())
    assert again == pytest.approx({k: found.scores[k] for k in again}, rel=1e-4)


def test_resume_after_every_epoch_is_bit_for_bit(cohort: tuple[Path, Path], tmp_path: Path) -> None:
    whole = run(World.single(), cohort, spec())
    for stopped in whole:
        ledger = Ledger(tmp_path / str(stopped.epoch))
        assert stopped.checkpoint is not None
        ledger.commit(stopped.checkpoint, fingerprint="x")
        rest = run(World.single(), cohort, spec(), resume=ledger.latest("x"))
        assert rest[-1].metrics == whole[-1].metrics
        expected, found = whole[-1].result, rest[-1].result
        assert (found.best_epoch, found.history) == (expected.best_epoch, expected.history)
        assert all(torch.equal(found.weights[k], w) for k, w in expected.weights.items())


def _outcome(world: World, *arguments: Any) -> tuple[list[dict[str, float]], torch.Tensor]:
    progress = run(world, *arguments)
    weights = progress[-1].result.weights.values()
    return [p.metrics for p in progress], torch.cat([w.flatten() for w in weights])


@pytest.mark.parametrize(("per", "batch_size"), [("batch", 6), ("batch", 5), ("image", 5)])
def test_two_ranks_equal_one_with_the_same_global_batch(
    two_ranks, cohort: tuple[Path, Path], per: str, batch_size: int
) -> None:
    settings = spec(epochs=2, batch_size=batch_size, dice={"per": per})
    metrics, weights = _outcome(World.single(), cohort, settings)
    for other_metrics, other_weights in two_ranks(_outcome, cohort, settings):
        assert (other_weights - weights).norm() < 2e-6 * weights.norm()
        for mine, theirs in zip(metrics, other_metrics, strict=True):
            assert mine == pytest.approx(theirs, rel=1e-5)


def _resumed(world: World, cohort: tuple[Path, Path], trial: Path) -> list[dict[str, float]]:
    resume = Ledger(trial).latest("x")
    assert resume is not None
    return [p.metrics for p in run(world, cohort, spec(), resume=resume)]


def test_another_number_of_ranks_goes_on_from_the_same_checkpoint(
    two_ranks, cohort: tuple[Path, Path], tmp_path: Path
) -> None:
    whole = run(World.single(), cohort, spec())
    assert whole[0].checkpoint is not None
    Ledger(tmp_path).commit(whole[0].checkpoint, fingerprint="x")
    for rest in two_ranks(_resumed, cohort, tmp_path):
        assert len(rest) == len(whole) - 1
        for mine, theirs in zip(whole[1:], rest, strict=True):
            assert mine.metrics == pytest.approx(theirs, rel=1e-4)


def _loss(world: World, settings: DiceSpec) -> tuple[float, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 1, 8, 8, generator=generator, requires_grad=True)
    mask = (torch.rand(5, 1, 8, 8, generator=generator) < 0.3).byte()
    mine = world.share(5)
    loss = batch_loss(logits[mine], mask[mine], settings, 5, world)
    loss.backward()
    assert logits.grad is not None
    mean = world.reduce_sum(loss.detach()) / world.size
    return float(mean), world.reduce_sum(logits.grad) / world.size  # as DDP takes it


@pytest.mark.parametrize("settings", [DiceSpec(), DiceSpec(squared=False), DiceSpec(per="image")])
def test_mean_over_ranks_is_the_loss_of_the_global_batch(two_ranks, settings: DiceSpec) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 1, 8, 8, generator=generator, requires_grad=True)
    mask = (torch.rand(5, 1, 8, 8, generator=generator) < 0.3).byte()
    whole = soft_dice_loss(logits.sigmoid(), mask, squared=settings.squared, per=settings.per)
    whole.backward()
    expected = whole.item()
    for value, gradient in [_loss(World.single(), settings), *two_ranks(_loss, settings)]:
        assert value == pytest.approx(expected, rel=1e-6)
        torch.testing.assert_close(gradient, logits.grad)


class Oracle(torch.nn.Module):
    """Segments by threshold: logits are the normalised image minus ``level``."""

    def __init__(self, level: float) -> None:
        super().__init__()
        self.level = level

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 50 * (x - self.level)


def _validated(world: World, path: Path, level: float) -> dict[str, float]:
    return validate(Oracle(level), Store.open(path), spec(), (0.0, 1.0), world)  # type: ignore[arg-type]


def test_validation_metrics_match_their_definition(two_ranks, cohort: tuple[Path, Path]) -> None:
    rows = Store.open(cohort[1]).read()
    assert rows.mask is not None
    predicted, true = rows.x[:, 0] > 150, rows.mask > 0
    both, total = (predicted & true).sum((1, 2)), predicted.sum((1, 2)) + true.sum((1, 2))
    dice = 2 * both / total
    tumour = true.any(2).any(1)
    expected = {
        "val/dice": float(2 * both.sum() / total.sum()),
        "val/iou": float(both.sum() / (total.sum() - both.sum())),
        "val/dice_tumour": float(dice[tumour].mean()),
        "val/iou_tumour": float((both / (total - both))[tumour].mean()),
        "val/loss": float(1 - 2 * both.sum() / total.sum()),
    }
    for found in [
        _validated(World.single(), cohort[1], 150.0),
        *two_ranks(_validated, cohort[1], 150.0),
    ]:
        assert found == pytest.approx(expected, abs=2e-3)
    assert 0.5 < expected["val/dice"] < 0.99


def test_no_tumour_found_where_there_is_none(tmp_path: Path) -> None:
    store = slices(tmp_path / "empty", 3, per_patient=1)
    found = validate(Oracle(1e6), store, spec(), (0.0, 1.0), World.single())  # type: ignore[arg-type]
    assert (found["val/dice"], found["val/iou"]) == (1.0, 1.0)
    assert "val/dice_tumour" not in found
    assert all(map(math.isfinite, found.values()))


def test_augmentation_depends_on_seed_epoch_and_row_only(cohort: tuple[Path, Path]) -> None:
    still = AugmentSpec(
        hflip=0, vflip=0, elastic_alpha=0, rotation_deg=0, shift=0, shear=0, zoom=(1, 1)
    )
    runs = [
        run(World.single(), cohort, spec(epochs=1, augment=augment))[-1].metrics
        for augment in (AugmentSpec(), AugmentSpec(), still, None)
    ]
    assert runs[0] == runs[1] != runs[2]
    assert runs[2] == runs[3]


def test_bf16_stays_near_fp32(cohort: tuple[Path, Path]) -> None:
    fp32, bf16 = (run(World.single(), cohort, spec(precision=p))[-1] for p in ("fp32", "bf16"))
    assert bf16.metrics["train/loss"] == pytest.approx(fp32.metrics["train/loss"], rel=0.05)
    assert bf16.result.weights["out.weight"].dtype == torch.float32


def test_starts_from_the_weights_given_with_its_own_epochs_and_rate(
    cohort: tuple[Path, Path],
) -> None:
    start = UNet(1, 4, init="kaiming").state_dict()
    (only,) = run(World.single(), cohort, spec(), initial=start, epochs=1, lr=1e-12)
    for name, tensor in only.result.weights.items():
        torch.testing.assert_close(tensor, start[name])


def test_says_what_is_missing(cohort: tuple[Path, Path], tmp_path: Path) -> None:
    train, val = map(Store.open, cohort)
    without_masks = features(tmp_path / "f", 4, (1, 32, 32))
    for stores, what in (((train.select([]), val), "train"), ((train, without_masks), "val")):
        with pytest.raises(UserError, match=f"segmenter: the {what} slices need rows with masks"):
            next(train_segmenter(spec(), *stores, NORMALISATION, World.single(), 0))


def test_starts_again_from_other_weights_when_it_finds_nothing(
    cohort: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    progress = run(World.single(), cohort, spec(epochs=4, lr=0.1))  # far too high: it dies at once
    losses = [p.metrics["val/loss"] for p in progress]
    assert losses[0] > 0.995 > min(losses)
    assert 1 <= caplog.text.count("started again with other weights") <= 3
