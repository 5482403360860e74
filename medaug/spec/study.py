"""What a ``jobs/*.yaml`` holds: data, split, segmenter, features, arms, classifier, sweep."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    ConfigDict,
    Field,
    SerializeAsAny,
    field_serializer,
    field_validator,
    model_validator,
)

from medaug.spec.base import Positive, PositiveFloat, Precision, Spec
from medaug.spec.classifier import ClassifierSpec, NetworkSpec
from medaug.spec.data import DataSpec, PhantomSpec
from medaug.spec.encoder import EncoderSpec, ImageEncoderSpec
from medaug.spec.resources import ResourceSpec
from medaug.spec.sweep import SweepSpec
from medaug.storage.uri import display_uri, local

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]

TAPS = (
    *("conv1", "conv2", "conv3", "conv4", "conv5"),
    *("deconv4", "deconv3", "deconv2", "deconv1"),
    *("uconv4", "uconv3", "uconv2", "uconv1"),
)
Tap = Literal[
    "conv1", "conv2", "conv3", "conv4", "conv5",
    "deconv4", "deconv3", "deconv2", "deconv1",
    "uconv4", "uconv3", "uconv2", "uconv1",
]  # fmt: skip


def _per_scheme(*, grouped_kfold: Any, published: Any, **limits: Any) -> Any:
    """A field whose default depends on the ``scheme`` field declared before it."""
    values = {"grouped_kfold": grouped_kfold, "published": published}
    return Field(default_factory=lambda fields: values[fields["scheme"]], **limits)


class SplitSpec(Spec):
    """Who fits, who chooses and who is scored.

    ``grouped_kfold``: patient-grouped, class-stratified nested cross-validation with a sealed test
    set. ``published``: one class-stratified random cut, with what the papers did wrong as keys;
    only protocol ``as_published`` takes it.
    """

    scheme: Literal["grouped_kfold", "published"] = "grouped_kfold"
    folds: int = _per_scheme(grouped_kfold=5, published=1, ge=1)
    val_fraction: float = _per_scheme(grouped_kfold=0.2, published=0.0, ge=0, lt=1)
    """Share of a fold's training patients that chooses epochs, filter and threshold. 0 (scheme
    ``published`` only): those who are scored choose."""
    test_fraction: Fraction = 0.0
    """Share of all patients that nothing reads before ``medaug unseal``."""
    seed: int = 0
    eval_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Scheme ``published``: the share that is scored."""
    unit: Literal["patient", "image"] = "patient"
    """Scheme ``published``: ``image`` draws single images, so a patient is on both sides."""
    generator_rows: Literal["train", "publisher_train"] = "train"
    """Scheme ``published``: ``publisher_train`` fits generators on all of the publisher's folder
    ``train``, rows that are scored later included (study D)."""

    @model_validator(mode="after")
    def _scheme_has_these_keys(self) -> SplitSpec:
        if self.scheme == "published":
            if self.folds != 1:
                raise ValueError("scheme published is a single cut: set folds to 1")
            if self.test_fraction:
                raise ValueError("scheme published seals nothing: set test_fraction to 0")
            return self
        if self.folds < 2:
            raise ValueError(f"folds should be greater than or equal to 2, got {self.folds}")
        if not self.val_fraction:
            raise ValueError("val_fraction should be greater than 0: who is scored must not choose")
        for key in ("eval_fraction", "unit", "generator_rows"):
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{key} belongs to scheme published (and protocol as_published)")
        return self


class AugmentSpec(Spec):
    """Classical augmentation; the defaults are Table 1 of study A (NETWORKS 1.1)."""

    hflip: Annotated[float, Field(ge=0, le=1)] = 0.5
    vflip: Annotated[float, Field(ge=0, le=1)] = 0.5
    elastic_alpha: Annotated[float, Field(ge=0)] = 720.0
    """Elastic displacement scale in pixels of a 240-pixel image."""
    elastic_sigma: Annotated[float, Field(ge=0)] = 24.0
    rotation_deg: Annotated[float, Field(ge=0, le=180)] = 20.0
    shift: Fraction = 0.1
    shear: Fraction = 0.05
    zoom: tuple[PositiveFloat, PositiveFloat] = (0.9, 1.1)
    crop: Fraction = 0.0
    """Largest share of the width cut off by a random crop (study D)."""
    brightness: Annotated[float, Field(ge=0)] = 0.0
    contrast: Annotated[float, Field(ge=0)] = 0.0
    clip: Fraction = 0.0
    """Share of the intensity range clipped at each end (study D)."""
    rot90: bool = False


class PretrainSpec(Spec):
    """Where the U-Net's starting weights come from: a phantom cohort or a weights file."""

    phantom: PhantomSpec | None = None
    weights: Path | None = None
    """A ``.safetensors`` file of a medaug U-Net; ``input_adapter`` says what becomes of it where
    its images had another number of channels. In its own folder (``models/NAME``) it says whom it
    was fitted on, of whom none may be held out; elsewhere the study's lineage is unknown."""
    epochs: Positive = 100
    lr: PositiveFloat = 1e-4

    @model_validator(mode="after")
    def _one_source(self) -> PretrainSpec:
        if (self.phantom is None) == (self.weights is None):
            raise ValueError("give exactly one of phantom, weights")
        return self


class DiceSpec(Spec):
    squared: bool = True
    per: Literal["batch", "image"] = "batch"


class SegmenterSpec(Spec):
    """U-Net of study A (NETWORKS 1.1)."""

    base: Positive = 64
    in_channels: Literal[1, 4] = 1
    """Not needed: the images decide. Studies of version 0.1 may have it."""
    input_adapter: Literal["slice_conv1", "replicate", "zero_pad"] = "slice_conv1"
    """How weights of another number of channels begin: ``medaug.models.unet.adapt_input``."""
    init: Literal["tl", "kaiming"] = "tl"
    dice: DiceSpec = DiceSpec()
    epochs: Positive = 30
    lr: PositiveFloat = 1e-5
    batch_size: Positive = 10
    """Global batch size, over all ranks."""
    precision: Precision = "auto"
    augment: AugmentSpec | None = AugmentSpec()
    pretrain: PretrainSpec | None = PretrainSpec(phantom=PhantomSpec(patients=50, seed=1))


class FeatureSpec(Spec):
    """Which U-Net block becomes the feature (NETWORKS 1.1, 'Feature taps')."""

    tap: Tap = "conv5"
    dtype: Literal["float16", "float32"] = "float16"
    crop: Literal["none", "predicted_tumour"] = "none"
    batch_size: Positive = 10
    precision: Precision = "auto"
    """``auto``: what the U-Net was trained in, so that all its features are made alike."""


FitOn = Literal["train", "pool"]
"""What a generator learns from: the fold's training rows, or the scans of the part ``pool`` as
well, whose classes a probe says that is fitted to the training rows."""


class ArmSpec(Spec):
    """Base of every arm's configuration; each arm in ``medaug.arms`` has its own subclass."""

    kind: str
    real_rows: bool = True
    """Whether the real training rows join the arm's own; without them it is "synthetic only"."""

    @model_validator(mode="after")
    def _has_rows(self) -> ArmSpec:
        if self.kind == "none" and not self.real_rows:
            raise ValueError("arm none adds no rows: without real_rows it has none at all")
        return self

    @property
    def needs(self) -> Mapping[str, str]:
        """Packages that it works with beside medaug's own: name -> the extra that brings it."""
        return {}

    @property
    def reads_pool(self) -> bool:
        """Whether the arm looks at unlabelled scans."""
        return self.kind == "pseudo_labels" or getattr(self, "fit_on", "train") == "pool"

    def maker(self, train_rows: int | None = None, draw: int = 0) -> dict[str, Any]:
        """What decides the rows that the arm makes, beside a training set of ``train_rows`` (None:
        all). Whether the classifier adds real ones is no business of that, so two arms that differ
        in that only are the same maker."""
        return self.canonical() | {"real_rows": True}


class WrittenArm(ArmSpec):
    """An arm's configuration as its own class has written it down, whose keys it has beside its
    kind; ``medaug.spec.build_arm`` makes that class of it again."""

    model_config = ConfigDict(extra="allow")

    @staticmethod
    def of(spec: ArmSpec, train_rows: int | None = None, draw: int = 0) -> WrittenArm:
        """How ``spec`` makes rows (:meth:`ArmSpec.maker`)."""
        return WrittenArm.model_validate(spec.maker(train_rows, draw))

    def get(self, key: str) -> Any:
        """The value of an own key of its kind, or None."""
        return (self.model_extra or {}).get(key)


class TrackingSpec(Spec):
    uri: str | None = None
    """MLflow tracking URI; None is a SQLite database in the storage folder."""
    required: bool = False
    """Stop with exit code 2 when MLflow cannot be reached at the start."""


Control = Literal[
    "none", "duplicate", "classical", "class_weights", "logit_adjust", "class_mean", "cosine_mean",
    "more_real",
]  # fmt: skip
CONTROLS: tuple[Control, ...] = get_args(Control)


class StudySpec(Spec):
    """A whole study."""

    name: Name
    paper: Literal["A", "B", "C", "D"] | None = None
    """The published study that this one rebuilds; its table stands beside ours in the report."""
    protocol: Literal["honest", "as_published"] = "honest"
    data: DataSpec = DataSpec()
    split: SplitSpec = SplitSpec()
    segmenter: SegmenterSpec | None = None
    features: FeatureSpec | None = None
    """None: the feature is what ``encoder`` makes of the image, or the image itself (studies B, C
    and D)."""
    encoder: EncoderSpec | None = None
    """What makes an image a feature, where that is no U-Net of this study."""
    arms: Mapping[Name, SerializeAsAny[ArmSpec]]
    """Name -> configuration; ``medaug.spec.loader`` builds each from its arm's own class."""
    classifier: SerializeAsAny[ClassifierSpec] = NetworkSpec()
    """``medaug.spec.classifier`` has a class for each kind."""
    classifiers: Mapping[Name, SerializeAsAny[ClassifierSpec]] = {}
    """More of them by name: every arm is judged by each. Without ``classifier`` the first of them
    takes its place."""
    controls: Literal["auto", "none"] | tuple[Control, ...] = "auto"
    """What protocol ``honest`` adds to the arms by itself: everything that needs no synthetic row,
    and with ``sweep.train_rows`` the positive control ``more_real``. Rows without their controls
    are not rankable."""
    sweep: SweepSpec = SweepSpec()
    resources: ResourceSpec = ResourceSpec()
    tracking: TrackingSpec = TrackingSpec()
    storage: Path = Path("runs")
    """A folder, or ``s3://bucket/prefix``: then the path of this node's copy of it."""

    @field_validator("storage")
    @classmethod
    def _storage_is_a_place(cls, storage: Path) -> Path:
        return local(storage)

    @field_serializer("storage", when_used="json")
    def _storage_as_told(self, storage: Path) -> str:
        return display_uri(storage)

    @model_validator(mode="after")
    def _features_need_segmenter(self) -> StudySpec:
        if (self.features is None) != (self.segmenter is None):
            raise ValueError("features and segmenter belong together: give both or neither")
        return self

    @model_validator(mode="after")
    def _one_way_to_features(self) -> StudySpec:
        kind = self.encoder.kind if self.encoder else "none"
        if kind == "unet" and self.features is None:
            raise ValueError("encoder unet is the U-Net of segmenter and features: give these")
        if kind not in ("none", "unet") and self.features is not None:
            raise ValueError(f"encoder {kind} and features both make features: take one of the two")
        return self

    @property
    def image_encoder(self) -> ImageEncoderSpec | None:
        """The encoder, where it is neither the image itself nor the study's U-Net."""
        return self.encoder if isinstance(self.encoder, ImageEncoderSpec) else None

    @property
    def judges(self) -> dict[str, ClassifierSpec]:
        """Every classifier by name; the first is what the study is about."""
        if self.classifier in self.classifiers.values():
            return dict(self.classifiers)
        return {self.classifier.kind: self.classifier, **self.classifiers}

    @model_validator(mode="after")
    def _single_trials_are_stopped(self) -> StudySpec:
        if self.sweep.stopping is not None and self.resources.replicates == "fused":
            raise ValueError(
                f"sweep.{self.sweep.stopping[0]} stops single trials and resources.replicates "
                "fused trains them together: take one of the two"
            )
        return self

    @model_validator(mode="after")
    def _shares_of_its_classes(self) -> StudySpec:
        for shares in self.sweep.per_class:
            if isinstance(shares, Mapping) and (strange := shares.keys() - set(self.data.classes)):
                raise ValueError(
                    f"sweep.per_class gives a share to {min(strange)}, which is no class of "
                    f"data.classes ({', '.join(self.data.classes)})"
                )
        return self

    @model_validator(mode="after")
    def _protocol_has_its_split(self) -> StudySpec:
        if (self.protocol == "as_published") != (self.split.scheme == "published"):
            raise ValueError(
                "protocol as_published and split.scheme published belong together: set both or "
                "neither"
            )
        return self
