"""Any chain of MONAI's transforms as the classical arm."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from medaug.arms import ArmContext
from medaug.arms.classical import ClassicalArm
from medaug.arms.monai_chain import MonaiChain, known
from medaug.errors import UserError
from medaug.plan.trials import plan_study
from medaug.spec import build_arm, build_study
from medaug.spec.arms import ARM_CONFIGS
from tests.extras import needs_monai

pytestmark = needs_monai

ROTATE = {"name": "RandRotate", "range_x": 0.5, "prob": 1.0}
NOISE = {"name": "RandGaussianNoise", "std": 0.1, "prob": 1.0}
FLIP = {"name": "Flip", "spatial_axis": [0]}


def arm_of(*transforms: dict[str, Any]) -> ClassicalArm:
    return ClassicalArm(build_arm("classical", {"transforms": [*transforms]}, ARM_CONFIGS))


def chain_of(*transforms: dict[str, Any]) -> MonaiChain:
    return MonaiChain(arm_of(*transforms).config.transforms or (), "arms.classical.transforms")


def test_a_chain_is_its_transforms_one_after_the_other() -> None:
    x = torch.rand(3, 2, 8, 8)
    assert torch.equal(chain_of(FLIP)(x, [1, 2, 3]), x.flip(2))
    twice = chain_of(FLIP, {"name": "ScaleIntensityFixedMean", "factor": 1.0})(x, [1, 2, 3])
    flipped = x.flip(2)
    centre = flipped.mean((1, 2, 3), keepdim=True)
    assert torch.allclose(twice, centre + 2 * (flipped - centre), atol=1e-5)


def test_an_image_depends_on_its_seed_alone() -> None:
    x, chain = torch.rand(4, 1, 8, 8), chain_of(ROTATE, NOISE)
    seeds = [5, 6, 7, 8]
    whole = chain(x, seeds)
    assert not torch.equal(whole[0], x[0])
    assert torch.equal(chain(x[2:], seeds[2:]), whole[2:]), "not on its place in the batch"
    np.random.seed(3)
    torch.manual_seed(3)
    assert torch.equal(chain_of(ROTATE, NOISE)(x, seeds), whole), "nor on anything before it"
    assert not torch.equal(chain(x, [9, 6, 7, 8])[0], whole[0])
    assert type(whole) is torch.Tensor
    assert whole.dtype == torch.float32


def test_rows_and_views(ctx: ArmContext, make_store: Any) -> None:
    images = replace(ctx, train=make_store(20, (1, 8, 8)))
    arm = arm_of(ROTATE)
    x, labels = zip(*arm.sample(images, 9), strict=True)
    fewer, _ = zip(*arm_of(ROTATE).sample(images, 4), strict=True)
    assert np.array_equal(np.concatenate(fewer), np.concatenate(x)[:4])
    assert np.concatenate(labels).tolist() == [i % 2 for i in range(9)]
    rows = np.array([3, 5])
    stored = images.train.read(rows).x
    views = [arm.view(stored, rows, number) for number in (0, 1)]
    assert not torch.equal(views[0], views[1])
    assert torch.equal(arm.view(stored[1:], rows[1:], 1), views[1][1:])


def test_only_augmentation_can_be_named() -> None:
    from monai import transforms

    assert {"RandRotate", "RandAffine", "RandGaussianNoise", "Rand2DElastic", "Flip"} <= {*known()}
    for name in ("SaveImage", "LoadImage", "Lambda", "TorchVision", "Compose", "RandRotated"):
        assert hasattr(transforms, name)
        assert name not in known()


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        ({"name": "RandRotte"}, r"transforms\[0\].name: MONAI has no augmentation 'RandRotte'; did you mean 'RandRotate'"),
        ({"name": "RandRotated"}, "'RandRotate' is the one for arrays"),
        ({"name": "SaveImage", "output_dir": "/tmp"}, "no augmentation 'SaveImage'"),
        ({"name": "Lambda", "func": "print"}, "no augmentation 'Lambda'"),
        ({"name": "RandRotate", "rang_x": 1}, r"transforms\[0\].rang_x: RandRotate takes no such key; did you mean 'range_x'"),
        ({"name": "RandGaussianNoise", "prob": "often"}, r"transforms\[0\]: RandGaussianNoise: "),
        ({"name": "RandAdjustContrast", "gamma": [1]}, r"transforms\[0\]: RandAdjustContrast: "),
        ({"name": "CenterSpatialCrop", "roi_size": [4, 4]}, r"CenterSpatialCrop makes 1x4x4 of 1x16x16; .* like Resize"),
    ],
)  # fmt: skip
def test_mistakes_are_told_before_anything_is_read(transform: dict[str, Any], message: str) -> None:
    study = {
        "name": "x",
        "data": {"image_size": 16},
        "arms": {"classical": {"transforms": [transform]}},
        "sweep": {"n_synthetic": [4]},
    }
    with pytest.raises(UserError, match=message) as told:
        plan_study(build_study(study, ARM_CONFIGS), "slices-x")
    assert str(told.value).startswith("arms.classical.transforms")
    assert "\n" not in str(told.value)


def test_keys_that_do_not_go_together() -> None:
    for keys, message in (
        ({"transforms": []}, "transforms is an empty list"),
        ({"transforms": [FLIP], "policy": "flip"}, "give one of the two"),
        ({"transforms": [{"prob": 1}]}, r"transforms.0.name: is missing"),
        ({"transforms": [{"name": "os.system"}]}, r"transforms.0.name"),
    ):
        with pytest.raises(UserError, match=message):
            build_arm("classical", keys, ARM_CONFIGS)


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "monai", None)
    with pytest.raises(UserError, match=r"needs the package monai; pip install 'medaug\[monai\]'"):
        arm_of(FLIP)
    build_arm("classical", {}, ARM_CONFIGS)
