"""What other tools' generators are to draw for a study: one trial a bundle and way of drawing."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medaug.arms.monai_bundle import Bundle, check_recipe, read_bundle
from medaug.data.given import place_of
from medaug.errors import UserError
from medaug.experiment.draw import bundle_name
from medaug.plan.sizes import Size, sizes_of
from medaug.plan.trials import rows_to_make
from medaug.plan.variants import ArmVariant, expand_arms
from medaug.spec import DrawTrial, StudySpec
from medaug.spec.folder import FolderSpec, MonaiBundleSpec


def reading_arms(study: StudySpec) -> list[ArmVariant]:
    """The arms whose rows another tool has made, or its generator makes.

    Raises:
        UserError: a search decides what is read.
    """
    for axis in study.sweep.space:
        arm, _, key = axis.partition(".")
        if isinstance(study.arms.get(arm), FolderSpec) and key != "real_rows":
            raise UserError(f"sweep.space: {axis} names rows on disk; list them in sweep.grid")
    return [variant for variant in expand_arms(study) if variant.arm.reads_given]


def places_of(
    spec: FolderSpec, study: StudySpec
) -> Iterator[tuple[tuple[int, int, Size], dict[str, Any]]]:
    """Every (fold, seed, size), and what the placeholders of its path stand for."""
    folds = range(study.split.folds)
    for fold, seed, size in itertools.product(folds, study.sweep.seeds, sizes_of(study)):
        rows = "all" if size[0] is None else size[0]
        yield (
            (fold, seed, size),
            {"fold": fold, "seed": seed, "train_rows": rows, "draw": size[1]},
        )


def draw_trial(
    study: StudySpec, variant: ArmVariant, path: Path, channels: int | None = None
) -> tuple[DrawTrial, Bundle]:
    """What the bundle at ``path`` is to draw: as many images as the longest ratio takes, of
    ``channels`` (None: as many as it makes).

    Raises:
        UserError: it is none, or does not make such images.
    """
    spec, classes = variant.spec, study.data.classes
    assert isinstance(spec, MonaiBundleSpec)
    numbers = spec.numbers or tuple(range(len(classes)))
    if len(numbers) != len(classes):
        raise UserError(
            f"arms.{variant.name}.numbers: names {len(numbers)} classes, and the study has "
            f"{len(classes)}"
        )
    try:
        bundle = read_bundle(path)
        if channels is None:
            channels = int(bundle.recipe.network.get("in_channels", 1))
        side = spec.side or bundle.side or study.data.image_size
        steps = spec.steps or bundle.steps
        check_recipe(bundle.recipe, numbers, channels, side, steps)
    except UserError as error:
        raise UserError(f"arms.{variant.name}.path: {error}") from None
    trial = DrawTrial(
        arm=variant.name,
        bundle=bundle_name(bundle),
        classes=classes,
        numbers=numbers,
        n=len(range(0, rows_to_make(study, variant), len(classes))),
        channels=channels,
        side=side,
        steps=steps,
        output=spec.output,
        ranks=study.resources.ranks,
    )
    return trial, bundle


def draws_of(study: StudySpec) -> list[tuple[DrawTrial, Bundle]]:
    """Every draw of the study, before its scans are read.

    Raises:
        UserError: a bundle is missing, or none that can be drawn from.
    """
    found: dict[str, tuple[DrawTrial, Bundle]] = {}
    for variant in reading_arms(study):
        if not isinstance(variant.spec, MonaiBundleSpec):
            continue
        places = (place for _, place in places_of(variant.spec, study))
        for path in dict.fromkeys(place_of(variant.spec, variant.name, p)[0] for p in places):
            trial, bundle = draw_trial(study, variant, path)
            found.setdefault(trial.key, (trial, bundle))
    return [*found.values()]
