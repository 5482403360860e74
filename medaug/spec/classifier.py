"""Every classifier's configuration: the linear ones by their names here, all others are networks.

A kind has its own keys, so that a key of another kind is a mistake and not ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from medaug.errors import UserError
from medaug.spec.base import Positive, PositiveFloat, Precision, Spec
from medaug.spec.plugins import CLASSIFIERS, Names
from medaug.spec.validation import KeyPath, Sources, validated, where

Weighting = Literal["none", "class_weights", "logit_adjust"]


class ClassifierSpec(Spec):
    """Base of every classifier's configuration; :func:`build_classifier` makes the right one."""

    kind: str
    weighting: Weighting = "none"
    """What is done about classes of unequal size, in the rows that are trained on (an arm's
    included): ``class_weights`` n / (K n_k) in the loss; ``logit_adjust`` subtracts the logarithm
    of the classes' shares from the logits afterwards (Menon et al. 2021, post hoc, tau 1)."""
    threshold: Literal["half", "validation"] = "validation"
    """From which probability a row is positive, with two classes."""

    def at_most(self, epochs: int) -> ClassifierSpec:
        """The same with fewer epochs and no early stop, where it is trained in epochs."""
        return self


class NetworkSpec(ClassifierSpec):
    """A network of ``medaug.models.classifiers.CLASSIFIERS`` and how it is trained."""

    kind: str = "feature_cnn"
    epochs: Positive = 50
    """In protocol ``honest`` an epoch is one pass over the *real* rows for every arm, so that all
    arms take the same number of optimiser steps; in ``as_published`` it is a pass over the arm's
    own rows."""
    batch_size: Positive = 16
    optimizer: Literal["adam", "rmsprop", "sgd"] = "adam"
    lr: PositiveFloat = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    n_out: Annotated[int, Field(ge=2)] | None = None
    """None: as many as there are classes."""
    focal_gamma: Annotated[float, Field(ge=0)] = 0.0
    balanced_sampler: bool = False
    final: Literal["average", "best_epoch"] = "average"
    """Which weights are kept: their average over the last tenth of the steps, with batch norm's
    statistics taken anew, or that after an earlier epoch whose validation loss was lower by more
    than two standard errors; or those of the epoch with the lowest validation loss, as in papers.
    """
    early_stop: Positive | None = None
    """With ``best_epoch``: stop after this many epochs without a better validation loss."""
    precision: Precision = "auto"

    @model_validator(mode="after")
    def _balanced_once(self) -> NetworkSpec:
        if self.balanced_sampler and self.weighting != "none":
            raise ValueError(
                f"balanced_sampler and weighting {self.weighting} balance twice: take one"
            )
        return self

    @model_validator(mode="after")
    def _stops_for_the_best(self) -> NetworkSpec:
        if self.early_stop is not None and self.final != "best_epoch":
            raise ValueError("early_stop waits for a better epoch: set final to best_epoch")
        return self

    def at_most(self, epochs: int) -> NetworkSpec:
        return self.model_copy(update={"epochs": min(self.epochs, epochs), "early_stop": None})


class LinearSpec(ClassifierSpec):
    """What linear classifiers share: rows become vectors, are standardised and rotated."""

    pool: Literal["auto", "none", "gap_gmp"] = "auto"
    """How a row becomes a vector: ``none`` takes all its numbers; ``gap_gmp`` the average and the
    maximum of each channel, which do not depend on where in the image something is; ``auto`` pools
    maps of more than four channels (features) and takes images and vectors as they are."""

    components: Positive | None = 100
    """Principal components of the real training rows that are kept; None: all numbers of a row."""
    refit: bool = True
    """When penalty (or temperature) and threshold are chosen, fit once more with the validation
    patients' rows among the real ones. Only in protocol ``honest``, where they are not scored, with
    all of a fold's training rows, whose number is not what the study is about, and not for arms
    without real rows."""


class ProbeSpec(LinearSpec):
    """L2-penalised (multinomial) logistic regression, fitted to convergence."""

    kind: Literal["probe"] = "probe"
    c_grid: tuple[PositiveFloat, ...] = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    """Inverse penalties (scikit-learn's C) that the validation patients choose from."""

    @field_validator("c_grid")
    @classmethod
    def _some(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if not values:
            raise ValueError("is empty: give at least one value")
        return tuple(sorted(set(values)))


class MeanSpec(LinearSpec):
    """``class_mean``: the nearest class mean; ``cosine_mean``: the class mean at the smallest
    angle. Neither knows how many rows a class has."""

    kind: Literal["class_mean", "cosine_mean"] = "class_mean"
    weighting: Literal["none"] = "none"
    """Class means count alike already: there is nothing to weigh."""


LINEAR: Mapping[str, type[LinearSpec]] = {
    "probe": ProbeSpec,
    "class_mean": MeanSpec,
    "cosine_mean": MeanSpec,
}
"""Kind -> its configuration; every other kind is a :class:`NetworkSpec`."""

_OWN = ("feature_cnn", "linear", "resnet50", "cnn12", "separable_cnn", "mlp")
NETWORKS = Names(_OWN, CLASSIFIERS)
"""The kinds of :class:`NetworkSpec`: the keys of ``medaug.models.classifiers.CLASSIFIERS``, which
loads torch."""
CLASSIFIER_KINDS = Names((*LINEAR, *_OWN), CLASSIFIERS)
"""What ``classifier.kind`` may be."""


def build_classifier(
    value: Any, prefix: KeyPath = ("classifier",), sources: Sources | None = None
) -> ClassifierSpec:
    """One classifier from its mapping, or as it is; without a kind it is study A's network.

    Args:
        prefix: path of ``value`` inside the study.

    Raises:
        UserError: a key that its kind does not have, or a value out of range.
    """
    if isinstance(value, ClassifierSpec):
        value = value.model_dump(mode="json", exclude_unset=True) | {"kind": value.kind}
    if not isinstance(value, Mapping):
        raise UserError(
            f"{where(prefix, sources or {})}: should be a section; write 'key: value' lines below "
            "it"
        )
    spec = LINEAR.get(str(value.get("kind")), NetworkSpec)
    return validated(spec, value, prefix, sources)
