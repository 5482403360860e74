"""Encoders as a study writes them."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from medaug.encoders import ENCODERS, encoder_of
from medaug.errors import UserError
from medaug.spec.encoder import (
    EfficientNetLite0Spec,
    EncoderSpec,
    NoEncoderSpec,
    WeightsSpec,
    WrittenEncoder,
)

ANY: TypeAdapter[object] = TypeAdapter(EncoderSpec)
WEIGHTS = {"kind": "weights", "path": "w", "network": "resnet18", "public": "x", "sha256": "a" * 64}
HUB = {"kind": "transformers", "model": "microsoft/rad-dino", "public": "x"}


def test_kind_tells_them_apart() -> None:
    assert ANY.validate_python({"kind": "none"}) == NoEncoderSpec()
    lite = ANY.validate_python({"kind": "efficientnet_lite0"})
    assert isinstance(lite, EfficientNetLite0Spec)
    assert (lite.taps, lite.image_size, lite.intensity) == ("blocks", 128, "auto")
    assert isinstance(ANY.validate_python(WEIGHTS), WeightsSpec)
    window = ANY.validate_python({"kind": "pixels_pca", "intensity": [0, 80]})
    assert window.intensity == (0.0, 80.0)  # type: ignore[attr-defined]
    for kind, encoder in ENCODERS.items():
        assert encoder.Config.model_fields["kind"].default == kind


def test_one_of_a_package_that_is_gone_is_read_and_not_used() -> None:
    body = {"kind": "vgg", "intensity": "unit", "layer": 5}
    written = ANY.validate_python(body)
    assert isinstance(written, WrittenEncoder)
    assert written.canonical() == body, "or its trials would have other names"
    with pytest.raises(UserError, match="encoder vgg: install the package that adds it"):
        encoder_of(written)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"kind": "vgg", "intensity": [80, 0]}, "no window"),
        ({"kind": "efficientnet_lite0", "tap": "last"}, "Extra inputs are not permitted"),
        (
            {"kind": "pixels_pca", "intensity": [80, 0]},
            "no window; give .low, high. with low < high",
        ),
        ({"kind": "efficientnet_lite0", "image_size": 16}, "greater than or equal to 32"),
        (WEIGHTS | {"sha256": "abc"}, "pattern"),
        (WEIGHTS | {"public": " "}, "at least 1 character"),
        ({k: v for k, v in WEIGHTS.items() if k != "public"}, "public"),
        (HUB, "revision: missing; give the commit of microsoft/rad-dino"),
        (HUB | {"revision": "main"}, "pattern"),
        (HUB | {"model": "dinov2"}, "neither a path .begin it with / or ./. nor an id"),
    ],
)
def test_what_is_refused(body: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ANY.validate_python(body)
