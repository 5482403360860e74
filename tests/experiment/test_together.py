"""Stage ``generate``: replicates that share passes, and ranks that wait for nobody."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medaug.errors import UserError
from medaug.experiment import run_together, run_trial
from medaug.spec import GenerateTrial, WrittenArm
from medaug.storage.results import TrialResult
from medaug.store import Fold, Provenance, Splits, Store, StoreSchema, StoreWriter
from medaug.train.checkpoint import Progress
from medaug.train.world import World

SHAPE = (6, 8, 8)
ACGAN = {
    "kind": "acgan",
    "epochs": 2,
    "ngf": 6,
    "ndf": 6,
    "nz": 10,
    "batch_size": 8,
    "lr_g": 1e-4,
    "lr_d": 1e-4,
    "eval_every": 1,
    "filter": "none",
}
ALONE = World.single()


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """Eight patients of six rows; two folds of different training patients."""
    units = [f"p{i}" for i in range(8)]
    patients = np.repeat(units, 6)
    label = (np.arange(48) // 6 % 2).astype(int)
    x = np.random.default_rng(0).normal(size=(48, *SHAPE)).clip(min=0) + label[:, None, None, None]
    folds = Splits(
        (
            Fold(tuple(units[:4]), tuple(units[4:6]), tuple(units[6:])),
            Fold(tuple(units[3:8]), tuple(units[:2]), (units[2],)),
        )
    )
    origin = Provenance("extract", "0" * 12, (), (), synthetic=False, encoder="unet")
    with StoreWriter(
        tmp_path / "stores" / "features",
        StoreSchema(SHAPE, "float32"),
        provenance=origin,
        classes=("no", "yes"),
        splits=folds,
    ) as writer:
        writer.write(
            x.astype(np.float32),
            label=label,
            patient=patients.tolist(),
            volume=patients.tolist(),
            slice_index=np.tile(np.arange(6), 8),
        )
    return tmp_path


def trial(arm: dict[str, Any], fold: int = 0, seed: int = 0) -> GenerateTrial:
    maker = WrittenArm.model_validate(arm)
    return GenerateTrial(arm="gan", maker=maker, n=20, features="features", fold=fold, seed=seed)


def test_replicates_that_share_passes_make_the_rows_they_make_alone(
    storage: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    configs = [trial(ACGAN, fold, seed) for fold in (0, 1) for seed in (0, 1)]
    alone = tmp_path_factory.mktemp("alone")
    (alone / "stores").mkdir()
    (alone / "stores" / "features").symlink_to(storage / "stores" / "features")

    separate = [list(run_trial(config, ALONE, alone)) for config in configs]
    trials = run_together(configs, ALONE, storage, [None] * 4)
    epochs = zip(*trials, strict=True)
    together: list[list[Progress]] = [list(each) for each in zip(*epochs, strict=True)]

    for own, expected in zip(together, separate, strict=True):
        assert [p.epoch for p in own] == [p.epoch for p in expected] == [1, 2, 3]
        for one, other in zip(own, expected, strict=True):
            assert one.metrics == pytest.approx(other.metrics, rel=1e-3, abs=1e-3)
        assert own[-1].result is not None
        assert expected[-1].result is not None
        name = own[-1].result.output
        assert name == expected[-1].result.output
        rows, others = (Store.open(at / "stores" / name) for at in (storage, alone))
        torch.testing.assert_close(
            rows.read(slice(0, 20)).x, others.read(slice(0, 20)).x, rtol=1e-3, atol=1e-3
        )


def test_what_trains_no_network_shares_nothing(storage: Path) -> None:
    configs = [trial({"kind": "gaussian"}, 0, seed) for seed in (0, 1)]
    with pytest.raises(UserError, match="gaussian: trains no network"):
        run_together(configs, ALONE, storage, [None, None])


def test_a_rank_does_not_wait_while_the_first_writes_rows(storage: Path) -> None:
    """There is no process group here at all: a collective would raise, not wait."""
    second = World(1, 2, 1, torch.device("cpu"))
    *_, last = run_trial(trial({"kind": "gaussian"}), second, storage)
    assert last.result == TrialResult()
    assert not any(name.name != "features" for name in (storage / "stores").iterdir())
