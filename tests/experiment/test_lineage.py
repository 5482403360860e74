"""Who was seen before being scored: refused in the honest protocol, counted in the published one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from medaug.errors import IntegrityError, UserError
from medaug.experiment.lineage import (
    PROVEN,
    UNKNOWN,
    VIOLATED,
    choosing_rows,
    exposure_of,
    lineage_of,
    prove_lineage,
    seen_by_weights,
)
from medaug.models.unet import UNet
from medaug.storage.artifacts import Artifacts
from medaug.store import Fold, Provenance, Splits, Store, StoreSchema, StoreWriter
from tests.audit.small_runs import of_features, run

PATIENTS = ("a", "b", "c", "d")


def write(path: Path, splits: Splits | None, provenance: Provenance, **extra: object) -> Store:
    """Two images of each patient, numbered 0 and 1."""
    patients = np.repeat(PATIENTS, 2)
    with StoreWriter(
        path,
        StoreSchema((1, 2, 2), "float32"),
        provenance=provenance,
        classes=("no", "yes"),
        splits=splits,
        extra=extra,
    ) as writer:
        writer.write(
            np.zeros((8, 1, 2, 2), np.float32),
            label=np.arange(8) % 2,
            patient=patients,
            volume=patients,
            slice_index=np.arange(8) % 2,
        )
    return Store.open(path)


def features(path: Path, splits: Splits) -> Store:
    return write(path / "features", splits, Provenance("slices", "0" * 12, (), (), synthetic=False))


def rows(path: Path, *fitted_on: str, synthetic: bool = True) -> Store:
    origin = Provenance("generate", "0" * 12, (), fitted_on, synthetic=synthetic)
    return write(path / "rows", None, origin)


BY_PATIENT = Splits((Fold(("a", "b"), ("c",), ("d",)),))
BY_IMAGE = Splits((Fold(("a/0", "a/1", "b/0", "c/0"), (), ("b/1", "c/1", "d/0")),), unit="image")


def test_roles_by_image_divide_patients(tmp_path: Path) -> None:
    store = features(tmp_path, BY_IMAGE)
    assert store.units.tolist() == ["a/0", "a/1", "b/0", "b/1", "c/0", "c/1", "d/0", "d/1"]
    assert store.split("train", 0).patients.tolist() == ["a", "a", "b", "c"]
    assert store.split("eval", 0).units.tolist() == ["b/1", "c/1", "d/0"]
    assert Splits.from_json(BY_IMAGE.to_json()) == BY_IMAGE
    assert features(tmp_path / "2", BY_PATIENT).units.tolist() == np.repeat(PATIENTS, 2).tolist()


def test_an_image_has_one_role() -> None:
    with pytest.raises(UserError, match="image a/0 twice; each belongs to exactly one role"):
        Splits((Fold(("a/0",), (), ("a/0",)),), unit="image")


def test_without_val_the_scored_rows_choose(tmp_path: Path) -> None:
    assert set(choosing_rows(features(tmp_path, BY_PATIENT), 0).patients) == {"c"}
    published = features(tmp_path / "2", BY_IMAGE)
    assert choosing_rows(published, 0).units.tolist() == ["b/1", "c/1", "d/0"]


def test_a_generator_of_the_training_patients_is_proven(tmp_path: Path) -> None:
    store, made = features(tmp_path, BY_PATIENT), rows(tmp_path, "a", "b")
    prove_lineage(made, store, 0)
    exposure = exposure_of(store, 0, store.split("train", 0), made)
    nobody = {"patients": 0, "images": 0}
    assert exposure.model_dump() == {
        "scored": {"patients": 1, "images": 2},
        "trained_on": nobody,
        "chose": nobody,
        "seen_by_generator": nobody,
    }
    assert lineage_of(exposure) == PROVEN


@pytest.mark.parametrize("seen", ["c", "d"])
def test_a_generator_that_has_seen_held_out_patients_is_refused(tmp_path: Path, seen: str) -> None:
    with pytest.raises(UserError, match=f"fitted on 1 held-out patients of fold 0 \\({seen}"):
        prove_lineage(rows(tmp_path, "a", seen), features(tmp_path, BY_PATIENT), 0)


def test_what_a_published_split_lets_be_seen_is_counted(tmp_path: Path) -> None:
    store = features(tmp_path, BY_IMAGE)
    made = rows(tmp_path, "a/0", "b/0", "b/1", "d/1")
    exposure = exposure_of(store, 0, store.split("train", 0), made)
    assert exposure.model_dump() == {
        "scored": {"patients": 3, "images": 3},
        "trained_on": {"patients": 2, "images": 0},  # b and c, by their other images
        "chose": {"patients": 3, "images": 3},
        "seen_by_generator": {"patients": 2, "images": 1},  # b by b/1 too, d by its other image
    }
    assert lineage_of(exposure) == VIOLATED


def test_controls_have_no_generator(tmp_path: Path) -> None:
    store = features(tmp_path, BY_PATIENT)
    transformed = rows(tmp_path, "d", synthetic=False)
    for added in (None, store.split("train", 0), transformed):
        exposure = exposure_of(store, 0, store.split("train", 0), added)
        assert exposure.seen_by_generator.patients == 0


def unet_file(storage: Path, **about: object) -> Path:
    """The weights of a published medaug U-Net."""
    Artifacts(storage).save_model("unet-0", {"w": torch.zeros(2)}, {"base": 1, **about})
    return Artifacts(storage).model_path("unet-0") / "weights.safetensors"


@pytest.mark.parametrize(("seen", "held_out"), [("c", "val"), ("d", "eval")])
def test_weights_that_have_seen_held_out_patients_are_refused(
    tmp_path: Path, seen: str, held_out: str
) -> None:
    store = features(tmp_path, BY_PATIENT)
    weights = unet_file(tmp_path, fitted_on=["x", seen])
    with pytest.raises(
        UserError, match=rf"{weights} was fitted on 1 held-out patients of fold 0 \({seen}"
    ):
        seen_by_weights(weights, store, 0)


def test_weights_bring_whom_they_have_seen(tmp_path: Path) -> None:
    store = features(tmp_path, BY_PATIENT)
    weights = unet_file(tmp_path, fitted_on=["a", "x"])
    assert seen_by_weights(weights, store, 0) == ("a", "x")
    about = weights.with_name("config.json")
    about.write_text(about.read_text().replace('"x"', '"y"'))  # forged
    with pytest.raises(IntegrityError, match=r"config\.json"):
        seen_by_weights(weights, store, 0)


def test_weights_of_which_nobody_says_whom_they_have_seen(tmp_path: Path) -> None:
    store = features(tmp_path, BY_PATIENT)
    weights = unet_file(tmp_path)
    assert seen_by_weights(weights, store, 0) is None
    moved = tmp_path / "weights.safetensors"
    shutil.copy(weights, moved)
    assert seen_by_weights(moved, store, 0) is None
    later = unet_file(tmp_path / "2", fitted_on=["a"], made_from=UNKNOWN)  # of its own start
    assert seen_by_weights(later, store, 0) is None

    origin = Provenance("extract", "0" * 12, (), ("a", "b"), synthetic=False)
    made = write(tmp_path / "of-unknown", BY_PATIENT, origin, made_from=UNKNOWN)
    train = made.split("train", 0)
    assert lineage_of(exposure_of(made, 0, train, None), None, made) == UNKNOWN
    assert lineage_of(exposure_of(store, 0, train, None), None, store) == PROVEN


def test_every_row_of_a_study_says_that_its_weights_are_unknown(tmp_path: Path) -> None:
    weights = tmp_path / "from-elsewhere.safetensors"
    save_file(UNet(1, 1, init="kaiming").state_dict(), weights)
    segmenter = {"base": 1, "epochs": 1, "init": "kaiming", "augment": None}
    spec = of_features(
        tmp_path / "runs",
        segmenter={**segmenter, "pretrain": {"weights": str(weights), "epochs": 1}},
        arms={"none": {}, "gaussian": {"components": 4}},
        sweep={"n_synthetic": [24], "seeds": [0]},
    )
    found = [json.loads(path.read_text()) for path in run(spec).glob("trials/*/result.json")]
    said = {result["lineage"] for result in found if result["stage"] == "classify"}
    assert said == {UNKNOWN}
