"""Training of flow matching on images, with the network that the arm has."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from medaug.errors import UserError
from medaug.models.velocity_unet import VelocityUNet, groups_of, patch_of
from medaug.spec.arms import FlowImageSpec
from medaug.train.checkpoint import Checkpoint, Ledger, Progress
from medaug.train.flow import Flow, FlowTask, _Training, train_flow
from medaug.train.rows import MemoryRows
from medaug.train.world import World
from tests.extras import needs_monai

pytestmark = needs_monai

SHAPE = (2, 8, 8)
ALONE = World.single()
TINY: dict[str, Any] = {
    "channels": (8, 8), "epochs": 3, "steps_per_epoch": 2, "batch_size": 7, "solver_steps": 2,
    "eval_every": 2, "precision": "fp32",
}  # fmt: skip


def spec(**keys: Any) -> FlowImageSpec:
    return FlowImageSpec(**{**TINY, **keys})


def rows(n: int = 30) -> MemoryRows:
    x = torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(1)).relu()
    labels = (np.arange(n) % 3 == 0).astype(np.int64)
    x += 3 * torch.from_numpy(labels)[:, None, None, None]
    return MemoryRows(x, labels, ("a", "b"))


def network(patch: int | None = None) -> nn.Module:
    return VelocityUNet(SHAPE, 2, (8, 8), 1, patch)


class MeanOf:
    """A quality that any rank can compute: the mean of what it is shown."""

    labels = torch.arange(10) % 2

    def summary(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1).mean(1, keepdim=True)

    def score(self, summary_ND: torch.Tensor) -> dict[str, float]:
        assert summary_ND.shape == (10, 1)
        return {"val/mean": float(summary_ND.mean())}


def train(
    world: World = ALONE, resume: Checkpoint | None = None, **keys: Any
) -> Iterator[Progress]:
    return train_flow(FlowTask(spec(**keys), network, rows(), 5, MeanOf(), resume), world)


def test_loss_is_the_velocity_s_error_and_falls() -> None:
    torch.manual_seed(0)
    epochs = list(train(epochs=8, steps_per_epoch=15, lr=3e-3, batch_size=16))
    loss = [each.metrics["train/loss"] for each in epochs]
    # The network begins at rest: rows of deviation 1 and noise of deviation 1 are 2 apart.
    first = _Training(FlowTask(spec(), network, rows(), 5), ALONE)
    assert [float(w.detach().abs().max()) for w in first.network.unet.out[2].parameters()] == [0, 0]
    begun = first.loss(torch.randn(7, *SHAPE), torch.zeros(7, dtype=torch.int64)).detach()
    assert float(begun) == pytest.approx(2, rel=0.2)
    assert loss[-1] < 0.8 * loss[0]
    assert ["val/mean" in each.metrics for each in epochs] == [False, True] * 4
    assert isinstance(epochs[-1].result, Flow)


def test_resume_after_every_epoch_is_bit_for_bit(tmp_path: Path) -> None:
    whole = list(train())
    noise, label = torch.randn(4, *SHAPE), torch.tensor([0, 1, 0, 1])
    made = partial(Flow.generate, x0=noise, label_N=label, guidance=1.5, steps=2)
    for stopped in whole:
        ledger = Ledger(tmp_path / str(stopped.epoch))
        assert stopped.checkpoint is not None
        ledger.commit(stopped.checkpoint, fingerprint="x")
        rest = list(train(resume=ledger.latest("x")))
        assert [p.metrics for p in rest] == [
            p.metrics for p in whole[stopped.epoch :] or whole[-1:]
        ]
        assert torch.equal(made(rest[-1].result), made(whole[-1].result))


def test_it_learns_in_fp16_with_a_scaled_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a T4 or V100: as well as in float32, and it goes on where it was with its scale."""
    keys: dict[str, Any] = {"epochs": 6, "steps_per_epoch": 15, "lr": 3e-3, "batch_size": 16}
    single = [each.metrics["train/loss"] for each in train(**keys)]
    monkeypatch.setenv("MEDAUG_PRECISION", "fp16")
    whole = list(train(precision="auto", **keys))
    half = [each.metrics["train/loss"] for each in whole]
    assert whole[-1].result.precision == "fp16"
    assert half == pytest.approx(single, rel=0.05)
    assert half != single
    assert half[-1] < 0.8 * half[0]
    stopped = whole[2].checkpoint
    assert stopped is not None
    rest = list(train(resume=stopped, precision="auto", **keys))
    assert [p.metrics for p in rest] == [p.metrics for p in whole[3:]]


def _outcome(world: World, keys: dict[str, Any]) -> tuple[dict[str, float], torch.Tensor]:
    """Metrics, and rows that are made from given noise."""
    *_, last = train(world, **keys)
    source = torch.Generator().manual_seed(2)
    noise, label = torch.randn(6, *SHAPE, generator=source), torch.arange(6) % 2
    return last.metrics, last.result.generate(noise, label, guidance=2.0, steps=2)


def test_two_ranks_equal_one_rank(two_ranks: Any) -> None:
    """An uneven global batch: three rows on one rank, four on the other. Rows are compared, not
    weights: a bias in front of group norm changes nothing, and Adam makes its rounding a step."""
    keys = {"lr": 3e-3, "steps_per_epoch": 4}
    metrics, expected = _outcome(ALONE, keys)
    untrained = _outcome(ALONE, {"lr": 1e-9})[1]
    for got_metrics, got in two_ranks(_outcome, keys):
        assert got_metrics == pytest.approx(metrics, rel=1e-3)
        off = float((got - expected).abs().max())
        assert off < 0.01 * float((untrained - expected).abs().max())


def test_the_average_lags_behind_the_weights_and_none_is_the_weights() -> None:
    for ema, same in ((0.9, False), (0.0, True)):
        *_, last = train(ema=ema)
        assert last.checkpoint is not None
        tensors = last.checkpoint.tensors
        network_, average = (
            torch.cat([t.flatten() for k, t in tensors.items() if k.startswith(f"{name}.")])
            for name in ("network", "average")
        )
        assert torch.equal(network_, average) == same


def test_patches_change_the_grid_and_not_the_shape() -> None:
    x, t, label = torch.randn(3, *SHAPE), torch.rand(3), torch.tensor([0, 1, 2])
    for patch in (1, 2, 4):
        field = network(patch)
        with torch.no_grad():
            for weight in field.parameters():  # it begins at rest
                weight.normal_(0, 0.1)
        out = field(x, t, label)
        assert out.shape == x.shape
        assert not torch.allclose(out, field(x, t, torch.tensor([1, 1, 2])))
    with pytest.raises(ValueError, match="image_size divisible by 16"):
        network(8)


def test_no_norm_takes_off_what_says_time_and_class() -> None:
    assert [groups_of(c) for c in ((32, 64, 128), (8, 8), (6, 12), (4,), (30, 60))] == [
        8,
        2,
        1,
        1,
        6,
    ]


@pytest.mark.parametrize(
    ("n_channels", "side", "patch"),
    [(1, 8, 1), (1, 32, 2), (1, 64, 4), (1, 128, 4), (1, 256, 4), (3, 64, 2), (3, 128, 2),
     (12, 64, 1), (1, 100, 1), (1, 72, 2)],
)  # fmt: skip
def test_patches_are_as_large_as_the_first_level_can_hold(
    n_channels: int, side: int, patch: int
) -> None:
    assert patch_of(n_channels, side, (32, 64, 128)) == patch


def test_rows_that_cannot_be_trained_on_are_named() -> None:
    unlabelled = rows()
    unlabelled.labels[3] = -1
    with pytest.raises(UserError, match="1 rows have no label"):
        list(train_flow(FlowTask(spec(), network, unlabelled, 5), ALONE))
