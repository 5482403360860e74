"""The configuration of every arm, apart from its code: a mistake in a study is told in a moment,
without torch. An arm's code is in ``medaug.arms``, in the file named after its kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from medaug.spec.base import Precision, Spec
from medaug.spec.folder import MONAI, FolderSpec, MonaiBundleSpec
from medaug.spec.gan import Beta, GanSpec, Weight, per_preset
from medaug.spec.plugins import ARMS, KEYS, Extended, is_kind
from medaug.spec.study import ArmSpec, AugmentSpec, FitOn, Positive, PositiveFloat


class NoneSpec(ArmSpec):
    kind: Literal["none"] = "none"


class ClassWeightsSpec(ArmSpec):
    kind: Literal["class_weights"] = "class_weights"


class LogitAdjustSpec(ArmSpec):
    kind: Literal["logit_adjust"] = "logit_adjust"


class MoreRealSpec(ArmSpec):
    kind: Literal["more_real"] = "more_real"


class DuplicateSpec(ArmSpec):
    kind: Literal["duplicate"] = "duplicate"
    classes: Literal["balanced", "prior"] = "balanced"
    """``balanced`` adds what the generated arms add: as many rows of each class. ``prior`` keeps
    the classes' shares."""


class TransformSpec(Spec):
    """One of MONAI's array transforms by its name, and its arguments as further keys."""

    model_config = ConfigDict(extra="allow")

    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9]*$")]

    @property
    def arguments(self) -> dict[str, Any]:
        """With tuples for lists, which MONAI tells apart from several values of one key."""
        return {key: _as_tuple(value) for key, value in (self.model_extra or {}).items()}


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


class ClassicalSpec(ArmSpec):
    kind: Literal["classical"] = "classical"
    policy: Literal[
        "study", "table1", "times4", "five", "flip", "crop", "clip", "brightness", "contrast",
        "custom",
    ] = "study"  # fmt: skip
    """``study``: what the U-Net is trained with. ``table1``: study A's. ``times4``: study C's left-
    right flip, up-down flip and quarter turn of every image. ``five``: study D's rivals together;
    ``flip`` to ``contrast``: each alone. ``custom``: what ``augment`` says."""
    augment: AugmentSpec | None = None
    transforms: tuple[TransformSpec, ...] | None = None
    """In the place of a policy: any of MONAI's array transforms, one after the other, like
    ``{name: RandRotate, range_x: 0.2, prob: 1.0}``."""
    views: Positive = 4
    """Where a frozen encoder makes the features: how many transformed views of each image there
    are, after which they repeat."""

    @model_validator(mode="after")
    def _custom_is_given(self) -> ClassicalSpec:
        if (self.policy == "custom") != (self.augment is not None):
            raise ValueError("policy custom and augment belong together: give both or neither")
        return self

    @model_validator(mode="after")
    def _one_recipe(self) -> ClassicalSpec:
        if self.transforms is not None:
            if self.policy != "study":
                raise ValueError("transforms take the place of policy: give one of the two")
            if not self.transforms:
                raise ValueError("transforms is an empty list: name one, or leave it out")
        return self

    @property
    def needs(self) -> Mapping[str, str]:
        return {"monai": "monai"} if self.transforms else {}


class NoiseSpec(ArmSpec):
    kind: Literal["noise"] = "noise"
    sigma: PositiveFloat = 0.1
    """Standard deviation of the noise in units of each channel's own."""


class MixupSpec(ArmSpec):
    kind: Literal["mixup"] = "mixup"
    alpha: PositiveFloat = 0.4
    """Both parameters of the Beta distribution of the mixing weight; small: close to one row."""


class PseudoLabelsSpec(ArmSpec):
    kind: Literal["pseudo_labels"] = "pseudo_labels"


class PcaModelSpec(ArmSpec):
    """Configuration of an arm that fits a model to principal components."""

    components: Positive | None = None
    """At most; fewer rows or values give fewer. null: 64 of features, 256 of images, which 64 leave
    blurred."""
    fit_on: FitOn = "train"


class SmoteSpec(ArmSpec):
    kind: Literal["smote"] = "smote"
    components: Positive = 64
    """Principal components in which neighbours are found, at most."""
    neighbours: Positive = 5
    of_other_patients: bool = False
    """Take neighbours from other patients only. Without, the neighbours of a slice are mostly the
    slices beside it, and SMOTE makes what is between them."""


class GaussianSpec(PcaModelSpec):
    kind: Literal["gaussian"] = "gaussian"
    covariance: Literal["class", "pooled"] = "class"
    """Of each class, or one of all classes about their means: fewer numbers to estimate."""


class FlowSpec(PcaModelSpec):
    kind: Literal["flow"] = "flow"
    hidden: Positive = 256
    depth: Positive = 3
    epochs: Positive = 20
    steps_per_epoch: Positive = 100
    batch_size: Positive = 128
    lr: PositiveFloat = 1e-3
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.995
    drop_label: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of rows that are shown without their class, which guidance needs."""
    guidance: Annotated[float, Field(ge=0)] = 1.0
    """Classifier-free guidance (Ho & Salimans 2022): v = v0 + guidance (v_class - v0). 1 follows
    the data; more makes classes more typical and less varied."""
    solver_steps: Positive = 25
    eval_every: Positive = 10
    """Epochs between measurements of ``val/fd``; the last epoch is always measured."""


class FlowImageSpec(ArmSpec):
    kind: Literal["flow_image"] = "flow_image"
    channels: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=6)] = (32, 64, 128)
    """Of the U-Net's levels, each of half the side of the one before; attention on the last."""
    blocks: Positive = 1
    """Residual blocks a level."""
    patch: Literal[1, 2, 4, 8] | None = None
    """Pixels a side that are one place of the first level. None: as large as leaves 16 places a
    side and fits the first level's channels (32 px: 2, 64 px: 4); larger is faster and coarser."""
    fit_on: FitOn = "train"
    epochs: Positive = 50
    steps_per_epoch: Positive = 100
    batch_size: Positive = 16
    """Global, over all ranks; all rows where there are fewer. Classes come in balanced batches."""
    lr: PositiveFloat = 5e-4
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay per step of the averaged weights that rows are made from; shorter in the first steps,
    and 0: none."""
    drop_label: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of rows that are shown without their class, which guidance needs."""
    guidance: Annotated[float, Field(ge=0)] = 1.0
    """As of ``flow``; other than 1, rows take twice as long."""
    solver_steps: Positive = 10
    """Of Heun's method, each two passes of the network."""
    eval_every: Positive = 10
    """Epochs between measurements of ``val/fd``; the last epoch is always measured."""
    precision: Precision = "auto"

    @property
    def needs(self) -> Mapping[str, str]:
        return MONAI

    @model_validator(mode="after")
    def _guidance_was_learnt(self) -> FlowImageSpec:
        if self.guidance != 1 and not self.drop_label:
            raise ValueError("guidance is away from what is learnt without classes: set drop_label")
        return self


class AcganSpec(GanSpec):
    """Networks of study A; what is learned and how is in :class:`GanSpec`."""

    kind: Literal["acgan"] = "acgan"
    cond: Literal["ac", "adc", "proj"] = "ac"
    ngf: Positive = 64
    ndf: Positive = 64
    """Channels of the hidden layers of generator and discriminator (the paper: 64, 256, 512)."""
    nz: Positive = 110
    """Length of the latent, whose first entries are the class (and InfoGAN's codes)."""
    width_rule: Literal["flat", "pyramid"] = "flat"
    """``flat``: all hidden layers alike, the literal reading of the paper; ``pyramid``: doubling
    towards the small maps, as in the reference code."""
    geometry: Literal["paper", "k3p0"] = "paper"
    out_act: Literal["tanh", "relu", "linear"] = per_preset(stable="linear", as_published="tanh")
    """The paper does not say; the reference code has tanh. ``feature_scale`` has to match."""
    d_norm: Literal["sn", "bn", "none"] = per_preset(stable="sn", as_published="bn")
    dropout: Annotated[float, Field(ge=0, lt=1)] = per_preset(stable=0.0, as_published=0.5)
    """In the discriminator, after every convolution."""
    n_codes: Annotated[int, Field(ge=0)] = 0
    """InfoGAN's continuous codes; 0: none."""
    filter: Literal["discriminator", "none"] = Field(
        default_factory=lambda fields: "none" if fields["cond"] == "proj" else "discriminator"
    )
    """Keep only rows whose class the discriminator predicts as intended, as the paper does."""
    filter_limit: Positive = 20
    """Stop a class when fewer than one in this many of its rows pass the filter."""

    @model_validator(mode="after")
    def _parts_fit(self) -> AcganSpec:
        if self.d_norm == "bn" and self.adv in ("wgan_gp", "r1"):
            raise ValueError(
                f"adv {self.adv} penalises each row's own gradient, which batch norm mixes: "
                "set d_norm to sn or none"
            )
        if self.filter == "discriminator" and self.cond == "proj":
            raise ValueError("a projection discriminator predicts no class: set filter to none")
        return self


class AcganImageSpec(AcganSpec):
    kind: Literal["acgan_image"] = "acgan_image"  # type: ignore[assignment]
    image_size: Annotated[int, Field(ge=8)] = 64
    """Side in pixels at which images are generated; larger slices are made smaller for it, and
    what is generated is made larger again."""


class InfoganSpec(AcganSpec):
    kind: Literal["infogan"] = "infogan"  # type: ignore[assignment]
    n_codes: Annotated[int, Field(ge=1)] = 2


class WganGpSpec(GanSpec):
    """Both presets are the same here: f-CLSWGAN is none of the four studies.

    Penalty 10, five critic steps per generator step, class loss .01 and beta1 .5 are that paper's
    (Xian et al. 2018); the small networks and their learning rate are our choice, for hundreds of
    rows instead of tens of thousands.
    """

    kind: Literal["wgan_gp"] = "wgan_gp"
    components: Positive = 64
    """Principal components, at most."""
    hidden: Positive = 256
    nz: Positive = 64

    adv: Literal["wgan_gp"] = "wgan_gp"
    cond: Literal["none"] = "none"
    aux_weight: Weight = 0.01
    """Weight of a frozen linear classifier's cross-entropy in the generator's loss."""
    feature_scale: Literal["standardise"] = "standardise"
    sampler: Literal["balanced", "prior"] = "balanced"
    epochs: Positive = 50
    steps_per_epoch: Positive | None = 100
    batch_size: Positive = 64
    lr_g: PositiveFloat = 5e-4
    lr_d: PositiveFloat = 5e-4
    betas: tuple[Beta, Beta] = (0.5, 0.9)
    n_critic: Positive = 5
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.98
    eval_every: Positive = 10


class DcganSpec(GanSpec):
    """Study B's setting: Adam 2e-4 with beta 0.5, batch 16, 2500 epochs.

    Study D gives 500 epochs and nothing else. ``stable`` smooths the labels and averages the
    weights of the same networks.
    """

    kind: Literal["dcgan"] = "dcgan"
    networks: Literal["auto", "dcgan32", "dcgan128"] = "auto"
    """``auto``: study B's below 64 pixels, study D's from there on."""
    nz: Positive = 100
    width: Positive | None = None
    """Channels (study B: 128 everywhere, study D: 64 in the discriminator's first layer)."""
    kernel: Literal[4, 5] = 5
    """Of study D's networks, which the paper does not give."""

    adv: Literal["bce"] = "bce"
    cond: Literal["none"] = "none"
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = per_preset(stable=0.1, as_published=0)
    sampler: Literal["prior"] = "prior"
    feature_scale: Literal["minmax"] = "minmax"
    epochs: Positive = per_preset(stable=500, as_published=2500)
    lr_g: PositiveFloat = 2e-4
    lr_d: PositiveFloat = 2e-4
    betas: tuple[Beta, Beta] = (0.5, 0.999)
    ema: Annotated[float, Field(ge=0, lt=1)] = per_preset(stable=0.99, as_published=0.0)
    eval_every: Positive = 50


def _keys_of(kind: str, found: Any) -> type[ArmSpec]:
    """Of an arm in another package, or the keys by themselves."""
    keys: type[ArmSpec] = is_kind(kind, getattr(found, "Config", found), ArmSpec)
    return keys


_OWN: Mapping[str, type[ArmSpec]] = {
    "none": NoneSpec,
    "duplicate": DuplicateSpec,
    "class_weights": ClassWeightsSpec,
    "logit_adjust": LogitAdjustSpec,
    "more_real": MoreRealSpec,
    "pseudo_labels": PseudoLabelsSpec,
    "classical": ClassicalSpec,
    "noise": NoiseSpec,
    "mixup": MixupSpec,
    "smote": SmoteSpec,
    "gaussian": GaussianSpec,
    "flow": FlowSpec,
    "flow_image": FlowImageSpec,
    "wgan_gp": WganGpSpec,
    "acgan": AcganSpec,
    "acgan_image": AcganImageSpec,
    "infogan": InfoganSpec,
    "dcgan": DcganSpec,
    "folder": FolderSpec,
    "monai_bundle": MonaiBundleSpec,
}

ARM_CONFIGS: Mapping[str, type[ArmSpec]] = Extended(_OWN, ARMS, _keys_of, f"{ARMS}.{KEYS}")
"""Kind -> configuration, those of installed packages included; ``medaug.arms.ARMS`` has the arm of
each."""
