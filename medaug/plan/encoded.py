"""What encoders make of a study: its features, its transformed views, and the plain linear models
that every study is compared with, whatever its own classifier."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medaug.encoders import encoder_of
from medaug.errors import UserError
from medaug.experiment import output_name
from medaug.plan.sizes import HeldBack, Size, held_back_counts
from medaug.plan.variants import ArmVariant, pool_arms, wanted_controls
from medaug.spec import ClassifyTrial, ExtractTrial, ProbeSpec, StudySpec, WrittenArm
from medaug.spec.arms import ClassicalSpec
from medaug.spec.encoder import EfficientNetLite0Spec, ImageEncoderSpec, PixelsPcaSpec

NONE = WrittenArm(kind="none")


def check_pool(study: StudySpec) -> None:
    """Raises UserError where an arm reads the pool, and its features would depend on the fold's
    patients."""
    spec = study.image_encoder
    if pool_arms(study) and spec is not None and encoder_of(spec).fitted:
        raise UserError(
            f"encoder: {spec.kind} is fitted to each fold's patients and makes no features of the "
            "pool; take a frozen one, like efficientnet_lite0"
        )


@dataclass(frozen=True)
class Pool:
    """Slices without a class, and the stores of their features."""

    slices: str
    features: Sequence[str]
    """Of each fold; none where the slices themselves are the features."""

    def inputs(self, fold: int, images: bool) -> dict[str, Any]:
        """What a generator reads of it; ``images``: the slices as well."""
        return {
            "pool": self.features[fold] if self.features else self.slices,
            "pool_slices": self.slices if images else None,
        }


def encode_trials(study: StudySpec, slices: str, spec: ImageEncoderSpec) -> list[ExtractTrial]:
    """A trial for each fold, all the same one where the encoder is frozen.

    Raises:
        UserError: the encoder's weights or packages are missing.
    """
    encoder = encoder_of(spec)
    name = encoder.name
    return [
        ExtractTrial(
            slices=slices,
            encoder=spec,
            encoder_name=name,
            fold=fold if encoder.fitted else 0,
            ranks=study.resources.ranks,
        )
        for fold in range(study.split.folds)
    ]


def view_trials(
    study: StudySpec, slices: str, variants: Sequence[ArmVariant]
) -> dict[str, list[ExtractTrial]]:
    """By an arm's signature, the views of all images that it chooses among: where a frozen encoder
    makes the features, they are the same for all folds, draws and seeds."""
    if (spec := study.image_encoder) is None or encoder_of(spec).fitted:
        return {}
    frozen = encode_trials(study, slices, spec)[0]
    return {
        variant.spec.signature(): [
            frozen.model_copy(update={"maker": WrittenArm.of(variant.spec), "view": view})
            for view in range(variant.spec.views)
        ]
        for variant in variants
        if isinstance(variant.spec, ClassicalSpec)
    }


def linear_encoders(study: StudySpec) -> dict[str, ImageEncoderSpec]:
    """By the name of the linear model on top: pixels always, a network's features where one is
    installed (the extra ``encoders``)."""
    found: dict[str, ImageEncoderSpec] = {"pixels-probe": PixelsPcaSpec()}
    network = EfficientNetLite0Spec()
    own = study.image_encoder
    if isinstance(own, EfficientNetLite0Spec):
        network = own  # its features are there anyway
    try:
        encoder_of(network).identity()
    except UserError:
        return found
    return {**found, "lite0-probe": network}


def linear_rows(
    study: StudySpec,
    made: Mapping[str, Sequence[ExtractTrial]],
    sizes: Sequence[Size],
    held_back: HeldBack | None,
) -> Iterator[ClassifyTrial]:
    """Each of them on the real rows alone, and the best-informed one (the last) with those of the
    positive control as well: it may be what all rows are compared with, and its learning curve
    tells what they are worth. Nothing in it happens by chance."""
    richest = [*made][-1:] if "more_real" in wanted_controls(study) else []
    for (name, extract), fold in itertools.product(made.items(), range(study.split.folds)):
        for train_rows, draw in sizes:
            more = held_back_counts(study, train_rows, held_back) if name in richest else ()
            for n in (0, *more):
                maker = WrittenArm(kind="more_real") if n else NONE
                yield ClassifyTrial(
                    classifier=ProbeSpec(),
                    classifier_name=name,
                    arm=maker.kind,
                    kind=maker.kind,
                    synthetic=False,
                    linear=True,
                    control=True,
                    features=output_name(extract[fold]),
                    maker=maker,
                    n_synthetic=n,
                    train_rows=train_rows,
                    draw=draw,
                    protocol=study.protocol,
                    fold=fold,
                    seed=study.sweep.seeds[0],
                    ranks=study.resources.ranks,
                )
