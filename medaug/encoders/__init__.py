"""Ways to make an image a vector: a frozen network from elsewhere, or principal components.

Each encoder is one file and one line here, or in a package of the user's own an entry point.
``none`` (the image itself) and ``unet`` (study A's chain of ``segmenter`` and ``features``) need no
encoder, so they are not among them.
"""

from __future__ import annotations

from collections.abc import Mapping

from medaug.encoders.base import Encoder, unsealed
from medaug.encoders.efficientnet import EfficientNetLite0Encoder
from medaug.encoders.features import encode_store
from medaug.encoders.pixels_pca import PixelsPcaEncoder
from medaug.encoders.transformers import TransformersEncoder
from medaug.encoders.weights import WeightsEncoder
from medaug.errors import UserError
from medaug.spec.encoder import ImageEncoderSpec
from medaug.spec.plugins import ENCODERS as GROUP
from medaug.spec.plugins import Extended, subclass

_OWN: Mapping[str, type[Encoder]] = {
    "efficientnet_lite0": EfficientNetLite0Encoder,
    "pixels_pca": PixelsPcaEncoder,
    "weights": WeightsEncoder,
    "transformers": TransformersEncoder,
}


ENCODERS: Mapping[str, type[Encoder]] = Extended(
    _OWN, GROUP, subclass(GROUP, Encoder, ImageEncoderSpec)
)
"""Kind -> encoder, those of installed packages included."""


def encoder_of(spec: ImageEncoderSpec) -> Encoder:
    """The encoder of a configuration, not opened yet.

    Raises:
        UserError: it is of a package that is not installed here.
    """
    if spec.kind not in ENCODERS:
        raise UserError(f"encoder {spec.kind}: install the package that adds it to {GROUP}")
    return ENCODERS[spec.kind](spec)


__all__ = ["ENCODERS", "Encoder", "encode_store", "encoder_of", "unsealed"]
