"""Flow matching on images; what every arm promises is in ``test_arms.py``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from medaug.arms import ArmContext
from medaug.arms.flow_image import FlowImageArm
from medaug.data.phantom import render
from medaug.errors import UserError
from medaug.plan.trials import plan_study
from medaug.spec import PhantomSpec, build_arm, build_study
from medaug.spec.arms import ARM_CONFIGS, FlowImageSpec
from medaug.store import Provenance, Store, StoreSchema, StoreWriter
from medaug.train.world import World
from tests.extras import needs_monai

pytestmark = needs_monai

SIDE = 16
SMALL: Mapping[str, Any] = {
    "channels": (8, 8), "epochs": 4, "steps_per_epoch": 15, "batch_size": 16, "lr": 3e-3,
    "solver_steps": 2, "precision": "fp32",
}  # fmt: skip


@pytest.fixture
def phantoms(tmp_path: Any) -> ArmContext:
    """Slices through the middle of phantom heads, of both classes."""
    spec = PhantomSpec(patients=12, slices=(4, 6), d_prime=2.6)

    def store(name: str, patients: range) -> Store:
        path = tmp_path / name
        schema, provenance = (
            StoreSchema((1, SIDE, SIDE), "float32"),
            Provenance("test", "0" * 12, (), (), synthetic=False),
        )
        with StoreWriter(path, schema, provenance=provenance, classes=("LGG", "HGG")) as writer:
            for patient in patients:
                label = patient % 2
                volume = render(spec, patient, bool(label), SIDE).image
                middle = np.moveaxis(volume, -1, 0)[:3, None].astype(np.float32)
                writer.write(
                    middle,
                    label=np.full(3, label),
                    patient=f"p{patient}",
                    volume=f"p{patient}",
                    slice_index=np.arange(3),
                )
        return Store.open(path)

    return ArmContext(store("train", range(8)), store("val", range(8, 12)), 3, World.single())


def test_training_on_phantoms_lowers_the_loss_and_is_measured(phantoms: ArmContext) -> None:
    arm = FlowImageArm(FlowImageSpec(**SMALL))
    epochs = list(arm.fit(phantoms))
    loss = [each.metrics["train/loss"] for each in epochs]
    assert loss[-1] < 0.9 * loss[0]
    assert "val/fd" in epochs[-1].metrics
    assert arm.precision == "fp32"
    made = arm.draw(4, 1, seed=3)
    assert made.shape == (4, 1, SIDE, SIDE)
    assert made.min() >= 0, "intensities are"


def test_guidance_one_is_the_plain_conditional_field(phantoms: ArmContext) -> None:
    arm = FlowImageArm(FlowImageSpec(**SMALL))
    list(arm.fit(phantoms))
    field, seen = arm.flow.field, []
    field.register_forward_hook(lambda _, inputs, __: seen.append(set(inputs[2].tolist())))
    plain = arm.draw(4, 1)
    assert seen == [{1}] * 4, "two steps of two passes, none of them without a class"
    seen.clear()
    arm.config = arm.config.model_copy(update={"guidance": 3.0})
    pushed = arm.draw(4, 1)
    assert seen == [{1}, {2}] * 4
    assert not np.allclose(pushed, plain)


def test_it_is_trained_on_images_where_an_encoder_makes_the_features() -> None:
    study = {
        "name": "x",
        "data": {"layout": "phantom", "image_size": 32, "phantom": {"patients": 12}},
        "encoder": {"kind": "pixels_pca"},
        "arms": {"flow_image": {}},
        "sweep": {"n_synthetic": [24], "seeds": [0]},
    }
    plan = plan_study(build_study(study, ARM_CONFIGS), "slices-x")
    (first, *_) = [trial for trial in plan.generate if trial.arm == "flow_image"]
    assert first.slices == "slices-x"
    assert not first.maker.reads_pool
    pooled = {**study, "encoder": None, "arms": {"flow_image": {"fit_on": "pool"}}}
    plan = plan_study(build_study(pooled, ARM_CONFIGS), "slices-x")
    (first, *_) = [trial for trial in plan.generate if trial.arm == "flow_image"]
    assert first.pool is not None, "scans without a class, as every GAN reads them"
    odd = {**study, "data": {**study["data"], "image_size": 34}}
    with pytest.raises(UserError, match=r"arms.flow_image: images of 34x34 .* divisible by 4"):
        plan_study(build_study(odd, ARM_CONFIGS), "slices-x")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"epocs": 3}, "arms.flow_image.epocs: unknown key; did you mean 'epochs'"),
        ({"channels": []}, "arms.flow_image.channels: .* at least 1 item"),
        ({"channels": [32, 0]}, r"arms.flow_image.channels.1: .* greater than or equal to 1"),
        ({"patch": 3}, "arms.flow_image.patch"),
        ({"ema": 1}, "arms.flow_image.ema: should be less than 1"),
        ({"guidance": 2, "drop_label": 0}, "arms.flow_image: guidance .* set drop_label"),
        ({"precision": "fp16"}, "did you mean 'bf16'|unknown value 'fp16'"),
    ],
)
def test_mistakes_are_one_line(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as told:
        build_arm("flow_image", keys, ARM_CONFIGS)
    assert "\n" not in str(told.value)


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("monai", "einops"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)  # as Python marks what it cannot import
            with pytest.raises(UserError) as told:
                build_arm("mine", {"kind": "flow_image"}, ARM_CONFIGS)
        assert str(told.value) == (
            f"arms.mine: flow_image needs the package {package}; pip install 'medaug[monai]'"
        )


def test_colour_and_many_channels(phantoms: ArmContext) -> None:
    for channels, patch in ((3, None), (12, 2)):
        arm = FlowImageArm(FlowImageSpec(**{**SMALL, "patch": patch}))
        arm.n_classes, arm.shape = 2, (channels, SIDE, SIDE)
        x, t = torch.randn(2, *arm.shape), torch.rand(2)
        assert arm._network()(x, t, torch.tensor([0, 2])).shape == x.shape
