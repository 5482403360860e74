"""Augmentation of what a discriminator sees, its adaptive probability, and LeCam's bound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from medaug.train import few_data
from medaug.train.checkpoint import Ledger
from medaug.train.draws import Draws
from medaug.train.few_data import adapted, augmented, lecam
from medaug.train.gan import train_gan, train_gans
from tests.train.counting import Counter
from tests.train.test_counts import gan
from tests.train.test_gan import Pair, Spec, train
from tests.train.test_replicates import ALONE, assert_equal, in_turn, task

N = 64


def seen(x: torch.Tensor, p: float = 1.0, step: int = 0) -> torch.Tensor:
    return augmented(x, torch.tensor([p]), [Draws(0, step, len(x), ALONE)], "augment real")


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 16, 16), (32, 8, 8), (20,)])
def test_rows_are_changed_as_often_as_asked(shape: tuple[int, ...]) -> None:
    x = torch.randn(N, *shape) + 3
    assert torch.equal(seen(x, 0.0), x)
    assert torch.equal(seen(x), seen(x)), "a function of the step's seed"
    assert not torch.equal(seen(x), seen(x, step=1))
    changed = (seen(x, 0.5) != x).flatten(1).any(1).float().mean()
    assert 0.25 < changed < 0.7
    assert (seen(x) != x).flatten(1).any(1).float().mean() > 0.8


def test_translation_moves_whole_pixels_and_flips() -> None:
    """A single lit pixel stays one, near where it was or near its mirror image."""
    x = torch.zeros(N, 8, 16, 16)
    x[:, :, 4, 11] = 1.0
    y = seen(x)
    lit = y.amax(1)
    assert set(lit.flatten().tolist()) == {0.0, 1.0}
    assert ((lit > 0).flatten(1).sum(1) <= 1).all()
    rows, columns = torch.nonzero(lit, as_tuple=True)[1:]
    assert set(rows.tolist()) <= {2, 3, 4, 5, 6} | {9, 10, 11, 12, 13}
    assert len(set(rows.tolist())) > 5
    assert len(set(columns.tolist())) > 5


def test_images_lose_a_square_and_change_in_colour() -> None:
    x = torch.rand(N, 1, 16, 16) + 10
    y = seen(x)
    lost = (y == 0).float().mean((1, 2, 3))
    assert lost.max() <= 0.25 + 0.3, "a quarter is cut out, an eighth of each side moved out"
    assert lost.mean() > 0.1
    means = torch.stack([row[row != 0].mean() for row in y])
    assert 0.1 < means.std() < 0.5


def test_features_lose_channels() -> None:
    y = seen(torch.ones(N, 200, 4, 4))
    assert abs(float((y == 0).all((2, 3)).float().mean()) - few_data.CHANNELS_DROPPED) < 0.1


@pytest.mark.parametrize("shape", [(1, 8, 8), (16, 6, 6), (20,)])
def test_gradients_pass(shape: tuple[int, ...]) -> None:
    x = torch.randn(6, *shape, dtype=torch.float64).float().requires_grad_()
    given = torch.randn(6, *shape)
    (seen(x) * given).sum().backward()
    assert x.grad is not None
    epsilon, at = 0.5, torch.randn(6, *shape)  # augmentation is affine in x: any step will do
    change = ((seen(x.detach() + epsilon * at) - seen(x.detach())) * given).sum() / epsilon
    torch.testing.assert_close((x.grad * at).sum(), change, rtol=1e-3, atol=1e-3)


def test_the_probability_rises_while_real_rows_are_known_and_falls_again() -> None:
    p = torch.tensor([0.0, 0.5, 0.84, 0.0])
    sign = torch.tensor([0.9, 0.9, 0.9, 0.1])
    moved = adapted(p, sign, 500)
    torch.testing.assert_close(moved, torch.tensor([0.1, 0.6, few_data.ADA_MOST, 0.0]))


def test_lecam_by_hand() -> None:
    """Tseng et al. 2021, eq. 4, one-sided."""
    real, fake = torch.tensor([[2.0, -1.0]]), torch.tensor([[-2.0, 3.0]])
    got = lecam(real, fake, torch.tensor([1.0]), torch.tensor([-0.5]))
    assert got.item() == pytest.approx(2.5**2 / 2 + 3.0**2 / 2)


OPTIONS: dict[str, dict[str, Any]] = {
    "diffaugment": {"d_aug": "diffaugment"},
    "ada": {"d_aug": "ada"},
    "lecam": {"lecam": 0.3},
    "both": {"d_aug": "ada", "lecam": 0.3, "accumulate": 2},
}


@pytest.mark.parametrize("option", OPTIONS)
def test_resume_is_bit_for_bit(option: str, tmp_path: Path) -> None:
    spec = Spec(**OPTIONS[option])
    whole = list(train(spec, Pair()))
    ledger = Ledger(tmp_path)
    assert whole[0].checkpoint is not None
    ledger.commit(whole[0].checkpoint, fingerprint="x")
    rest = list(train(spec, Pair(), resume=ledger.latest("x")))
    assert [p.metrics for p in rest] == [p.metrics for p in whole[1:]]
    plain = list(train(Spec(), Pair()))
    assert plain[-1].metrics["train/d_loss"] != whole[-1].metrics["train/d_loss"]
    if spec.d_aug == "ada":
        assert whole[-1].checkpoint is not None
        assert 0 <= float(whole[-1].checkpoint.tensors["extra.ada"]) < 1
    if spec.lecam:
        assert whole[-1].checkpoint is not None
        assert float(whole[-1].checkpoint.tensors["extra.lecam_real"]) != 0


@pytest.mark.parametrize("option", ["diffaugment", "ada", "lecam"])
def test_fused_replicates_equal_separate_ones(option: str) -> None:
    tasks = [task("stable", seed, **OPTIONS[option]) for seed in range(3)]
    for one, fused in zip(tasks, in_turn(train_gans(tasks, ALONE)), strict=True):
        assert_equal(fused, list(train_gan(one, ALONE)))


@pytest.mark.parametrize("option", OPTIONS)
def test_no_step_waits(option: str) -> None:
    step = gan(**OPTIONS[option])
    step()
    with Counter() as counter:
        step()
    assert not counter.waits
