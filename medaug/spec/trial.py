"""One trial: a stage of a study with everything that decides its outcome."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, TypeVar

from pydantic import BeforeValidator, Field, SerializeAsAny, TypeAdapter

from medaug.spec.base import Spec, signature
from medaug.spec.classifier import LINEAR, ClassifierSpec, NetworkSpec
from medaug.spec.encoder import ImageEncoder as Encoder
from medaug.spec.per_class import UNIFORM, PerClass, per_class_title
from medaug.spec.study import (
    AugmentSpec,
    FeatureSpec,
    SegmenterSpec,
    WrittenArm,
)

Stage = Literal["draw", "segment", "extract", "generate", "classify"]
DrawnBy = Literal["place", "name"]
T = TypeVar("T", bound="TrialConfig")


def _classifier(value: Any) -> Any:
    """Of its own kind's type, which is told by the kind."""
    if not isinstance(value, Mapping):
        return value
    return LINEAR.get(str(value.get("kind")), NetworkSpec).model_validate(value)


class TrialConfig(Spec):
    """A unit of work for one group of DDP ranks; its :attr:`key` names it for ever.

    The base of the stages' trials. What is for people only (leaderboard columns, MLflow tags)
    does not enter the key. Nor does ``ranks``: global batches are the same for any number of
    ranks, so a trial may go on with another number of them (equal to float tolerance, not bit for
    bit).
    """

    FOR_PEOPLE: ClassVar[frozenset[str]] = frozenset()
    """Fields of the stage that do not decide the outcome."""

    stage: Stage
    fold: int
    seed: int = 0
    ranks: int = 1
    recorded_key: str | None = None
    """Of a trial of version 0.1, whose keys were made from other fields: the name it has."""

    @cached_property
    def key(self) -> str:
        """Twelve hex digits: the signature of everything that decides the outcome."""
        return self._signed()

    def _signed(self, *beside: str) -> str:
        """The signature of all fields but those ``beside`` what decides the outcome."""
        if self.recorded_key is not None:
            return self.recorded_key
        left_out = {"ranks", "recorded_key", *self.FOR_PEOPLE, *beside}
        return signature(self.model_dump(mode="json", exclude=left_out))

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As pydantic's; names that were made of the fields before, the copy makes anew."""
        copied = super().model_copy(update=update, deep=deep)
        for name in copied.__dict__.keys() - type(self).model_fields.keys():
            del copied.__dict__[name]
        return copied

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the stores and models that it reads; they are hashes, so data enters the key."""
        return ()

    @property
    def title(self) -> str:
        """For people: ``acgan ngf=64 ndf=64 +1200``, or the stage where there is no arm."""
        return self.stage

    @property
    def full_title(self) -> str:
        """For people who see many: ``classify acgan ngf=64 +300 of 120 fold 0 seed 1``."""
        named = [self.stage] if self.title == self.stage else [self.stage, self.title]
        return " ".join([*named, f"fold {self.fold}", f"seed {self.seed}"])


class TrainingSet(NamedTuple):
    """Which of a fold's real training rows a trial has, where it does not have all."""

    n_rows: int
    fold: int
    draw: int = 0
    drawn_by: DrawnBy = "place"


class TrainingTrial(TrialConfig):
    """The base of those that train on a fold's real rows."""

    train_rows: int | None = None
    """How many; None: all."""
    draw: int = 0
    """Which patients a training set of ``train_rows`` holds."""
    drawn_by: DrawnBy = "place"
    """What puts the patients into an order before some are drawn: their place in the store, which
    is that of the raw names. It was their pseudonyms, so that draws followed the site's key."""

    @property
    def training_set(self) -> TrainingSet | None:
        """None: all rows."""
        if self.train_rows is None:
            return None
        return TrainingSet(self.train_rows, self.fold, self.draw, self.drawn_by)

    def _signed(self, *beside: str) -> str:
        as_before = self.train_rows is None or self.drawn_by == "name"
        return super()._signed(*beside, *(["drawn_by"] if as_before else []))


class DrawTrial(TrialConfig):
    """A generator that another tool has trained to images of each class. They serve all folds and
    seeds (both are 0 here), and studies of any size of image."""

    FOR_PEOPLE = frozenset({"arm"})

    stage: Literal["draw"] = "draw"
    arm: str
    """What the study calls the (first) arm that takes them."""
    bundle: str
    """The model with the network's weights and its sampler, by the hash of all of it."""
    classes: tuple[str, ...]
    numbers: tuple[int, ...]
    """What the network calls them."""
    n: int
    """Images of each class."""
    channels: int
    side: int
    """Pixels a side that the network makes."""
    steps: int
    """Of the sampler."""
    output: tuple[float, float]
    """What the network calls black and white."""
    fold: int = 0

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.bundle,)

    @property
    def rows(self) -> int:
        """Images in all."""
        return self.n * len(self.numbers)

    @property
    def title(self) -> str:
        return self.arm

    @property
    def full_title(self) -> str:
        return f"{self.stage} {self.title}"


class SegmentTrial(TrialConfig):
    """Slices and masks to a U-Net."""

    FOR_PEOPLE = frozenset({"purpose"})

    stage: Literal["segment"] = "segment"
    segmenter: SegmenterSpec
    slices: str
    initial: str | None = None
    """The U-Net whose weights it starts from."""
    weights_sha256: str | None = None
    """Of the file ``segmenter.pretrain.weights``."""
    purpose: Literal["pretrain"] | None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        return _named(self.slices, self.initial)

    @property
    def title(self) -> str:
        return self.purpose or self.stage


class ExtractTrial(TrialConfig):
    """Slices to features: by a block of a fold's U-Net, or by an encoder, of which a frozen one
    serves all folds (``fold`` is then 0)."""

    FOR_PEOPLE = frozenset({"encoder"})

    stage: Literal["extract"] = "extract"
    slices: str
    features: FeatureSpec | None = None
    unet: str | None = None
    encoder: Encoder | None = None
    encoder_name: str | None = None
    """Hash of all that decides the encoder's numbers, its weights included."""
    maker: WrittenArm | None = None
    """The classical arm that transforms each image before it is encoded."""
    view: int = 0
    """Which of its views."""

    @property
    def inputs(self) -> tuple[str, ...]:
        return _named(self.slices, self.unet)

    @property
    def title(self) -> str:
        parts = [self.stage, *([self.encoder.kind] if self.encoder else [])]
        return " ".join([*parts, *([f"{self.maker.kind} view {self.view}"] if self.maker else [])])


class GenerateTrial(TrainingTrial):
    """An arm and the training rows to more rows."""

    FOR_PEOPLE = frozenset({"arm", "point", "together_with", "encoder"})

    stage: Literal["generate"] = "generate"
    arm: str
    """What the study calls the arm."""
    maker: WrittenArm
    """How the arm makes rows."""
    point: Mapping[str, Any] = {}
    """Values of the arm's grid axes."""
    n: int
    """How many rows are drawn; row i is the same however many are."""
    features: str
    given: str | None = None
    """The store of what another tool has made, where the arm reads such."""
    pool: str | None = None
    """The features of unlabelled scans, where the arm reads such."""
    pool_slices: str | None = None
    """The unlabelled slices, where it makes images of which an encoder makes features."""
    generator_rows: Literal["train", "publisher_train"] = "train"
    slices: str | None = None
    """Where features are no images and the arm needs some: the slices, and what makes features of
    them."""
    unet: str | None = None
    encoding: FeatureSpec | None = None
    encoder: Encoder | None = None
    encoder_name: str | None = None
    augment: AugmentSpec | None = None
    together_with: tuple[str, ...] = ()
    """Keys of the trials that it trains along with itself, after the name of their experiment."""

    @property
    def inputs(self) -> tuple[str, ...]:
        return _named(
            *(self.features, self.slices, self.unet, self.given),
            *(self.pool, self.pool_slices),
        )

    @cached_property
    def generator_key(self) -> str:
        """Of all that decides the generator and each of its rows, but not how many are drawn: a
        longer axis of rows finds the generator that is there, and what was trained on its first
        rows."""
        return self._signed("n")

    @property
    def title(self) -> str:
        return configuration_title(self.arm, self.point, train_rows=self.train_rows, draw=self.draw)


class ClassifyTrial(TrainingTrial):
    """Real rows and an arm's to a classifier and its scores on held-out patients."""

    FOR_PEOPLE = frozenset(
        {"arm", "kind", "synthetic", "point", "classifier_name", "linear", "control", "keep"}
    )

    stage: Literal["classify"] = "classify"
    classifier: Annotated[SerializeAsAny[ClassifierSpec], BeforeValidator(_classifier)]
    classifier_name: str = ""
    """What the study calls the classifier; nothing where it has but one."""
    arm: str
    kind: str
    synthetic: bool
    """Whether the arm's rows are made by a generator."""
    point: Mapping[str, Any] = {}
    """Values of the arm's grid axes."""
    linear: bool = False
    """Whether this is the plain linear model that every study is compared with."""
    control: bool = False
    """Whether the protocol added this arm, not the study."""
    features: str
    generator: str | None = None
    """The generator of the arm's rows, of which the first of each class are taken."""
    rows: str | None = None
    """The store that they are in; None where the arm uses training rows again, or adds none."""
    maker: WrittenArm | None = None
    """How the arm chooses rows, where there is no store of them."""
    views: tuple[str, ...] = ()
    """Stores of the training rows transformed, among which the arm chooses."""
    n_synthetic: int
    """How many rows are added."""
    per_class: PerClass = UNIFORM
    """Whom to add: how they are shared out among the classes."""
    real_rows: bool = True
    protocol: Literal["honest", "as_published"] = "honest"
    keep: bool = False
    """Whether a network's weights stay when it is finished."""

    @cached_property
    def key(self) -> str:
        """As of all trials; in which of its generator's stores the rows lie decides nothing, and
        what is as it was before there was an axis has the name that it had."""
        usual = ["per_class"] if self.per_class == UNIFORM else []
        return self._signed(*usual, *(["rows"] if self.generator else []))

    @property
    def inputs(self) -> tuple[str, ...]:
        return _named(self.features, self.rows, *self.views)

    @property
    def configuration(self) -> tuple[Any, ...]:
        """What replicates have in common: all that a row of a leaderboard is about."""
        point = tuple(sorted((key, repr(value)) for key, value in self.point.items()))
        return (
            *(self.classifier_name, self.linear, self.arm, self.kind, point),
            *(self.n_synthetic, self.train_rows),
            *(() if self.per_class == UNIFORM else (per_class_title(self.per_class),)),
        )

    @property
    def title(self) -> str:
        return configuration_title(
            self.arm,
            self.point,
            self.n_synthetic,
            self.train_rows,
            self.classifier_name,
            self.draw,
            per_class_title(self.per_class),
        )


AnyTrial = Annotated[
    DrawTrial | SegmentTrial | ExtractTrial | GenerateTrial | ClassifyTrial,
    Field(discriminator="stage"),
]
_TRIALS: TypeAdapter[Any] = TypeAdapter(AnyTrial)


def parse_trial(data: Mapping[str, Any]) -> TrialConfig:
    """The trial that was written down as ``data``; raises pydantic's ValidationError."""
    if data.get("train_rows") is not None:
        data = {"drawn_by": "name", **data}  # as all were when nothing said so
    return _TRIALS.validate_python(data)


def configuration_title(
    arm: str,
    point: Mapping[str, Any],
    n_synthetic: int = 0,
    train_rows: int | None = None,
    classifier: str = "",
    draw: int = 0,
    per_class: str = UNIFORM,
) -> str:
    """For people: ``acgan ngf=64 ndf=64 +1200 rare_only of 120 by probe``."""
    parts = [arm, *(f"{key}={value}" for key, value in point.items())]
    parts += [f"+{n_synthetic}"] if n_synthetic else []
    parts += [per_class] if per_class != UNIFORM else []
    parts += [f"of {train_rows}"] if train_rows is not None else []
    parts += [f"draw {draw}"] if draw else []
    parts += [f"by {classifier}"] if classifier else []
    return " ".join(parts)


def _named(*names: str | None) -> tuple[str, ...]:
    return tuple(name for name in names if name is not None)
