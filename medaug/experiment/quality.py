"""How good an arm's rows are, beside real rows and a Gaussian's, and what speaks against them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch

from medaug.arms import ArmContext
from medaug.arms.gaussian import GaussianArm
from medaug.audit.given import copied_features
from medaug.errors import UserError
from medaug.metrics.extractor import IMAGE_EXTRACTOR, image_features
from medaug.metrics.generative import gap_gmp
from medaug.metrics.quality import quality_report, space_of, train_on_test_on
from medaug.spec import GenerateTrial
from medaug.spec.arms import GaussianSpec
from medaug.store import Store
from medaug.train.world import World

QUALITY_ROWS = 2000
"""At most so many generated rows are compared with real ones: enough for every measure."""
FEWEST_QUALITY_ROWS = 16
LEAST_DIVERSITY = 0.3
"""Within-class spread of generated rows over that of real ones."""


def quality_of(rows: Store, context: ArmContext, *, floor: bool) -> dict[str, float]:
    """Measures of the generated rows against the training rows and the validation patients', and
    how many rows they were taken on. ``floor``: and what a Gaussian's rows score
    (:func:`gaussian_tstr`)."""
    fake = rows.select(np.arange(min(len(rows), QUALITY_ROWS)))
    if len(fake) < FEWEST_QUALITY_ROWS:  # a filter that lets nothing pass says enough itself
        return {}
    sides = (context.train, context.val, fake)
    # Published protocols hold out rows that were trained on: at distance 0 from themselves.
    with np.errstate(divide="ignore"):
        report = quality_report(
            *map(_pooled, sides),
            train_label=context.train.labels,
            heldout_label=context.val.labels,
            fake_label=fake.labels,
            train_patients=context.train.patients,
            heldout_patients=context.val.patients,
            seed=context.seed,
        )
    names = ("rows_train", "rows_heldout", "rows_fake")
    report |= {name: float(len(side)) for name, side in zip(names, sides, strict=True)}
    if floor:
        report["tstr_gaussian"] = gaussian_tstr(context, len(fake))
    return {name: value for name, value in report.items() if math.isfinite(value)}


def gaussian_tstr(context: ArmContext, n: int) -> float:
    """What a classifier reaches on the validation patients that was trained on as many rows of a
    Gaussian of each class in principal components (of pixels, where rows are images), fitted on the
    same training rows: what a network has to beat. NaN where a class is too small for it."""
    if np.bincount(context.train.labels, minlength=len(context.train.classes)).min() < 2:
        return math.nan
    arm = GaussianArm(GaussianSpec())
    list(arm.fit(context))
    extract = extractor_of(context.train)[1]
    made = [(extract(torch.from_numpy(x)), label) for x, label in arm.sample(context, n)]
    fake, label = (np.concatenate(parts) for parts in zip(*made, strict=True))
    train = _pooled(context.train)
    space = space_of(train)
    return train_on_test_on(space(fake), label, space(_pooled(context.val)), context.val.labels)


def refuse_copies(rows: Store, config: GenerateTrial, context: ArmContext, features: Store) -> None:
    """Features from elsewhere must not hold those of patients who are scored. Near-copies count
    where they are more than twice as many as usual: it is asked once a fold.

    Raises:
        UserError: they do.
    """
    held_out, train = features.split("eval", config.fold), _pooled(context.train)
    space = space_of(train)
    fake, real, train = map(space, (_pooled(rows), _pooled(held_out), train))
    exact, low, usual = copied_features(fake, real, held_out.patients, train)
    if exact or low > 2 * usual:
        how = f"{exact} are copies" if exact else f"at least {low:.1%} are near-copies"
        raise UserError(
            f"arms.{config.arm}: of its {len(rows)} rows {how} of patients who are scored in "
            f"fold {config.fold} (of real rows of others {usual:.1%}); bring rows made "
            "without them"
        )


def extractor_of(rows: Store) -> tuple[str, Callable[[torch.Tensor], np.ndarray]]:
    """What measures of quality are taken on, by name: the encoder's own numbers where rows are
    such, a U-Net's features pooled, and of images what a fixed network makes of them."""
    if (encoder := rows.provenance.encoder) is None:
        return IMAGE_EXTRACTOR, image_features
    if rows.schema.shape[1:] == (1, 1):  # a mean and a maximum of one place would count it twice
        return encoder, _as_vectors
    return "gap+gmp", gap_gmp


def _as_vectors(x_NCHW: torch.Tensor) -> np.ndarray:
    return x_NCHW.float().flatten(1).cpu().numpy().copy()  # a batch's memory is used again


def collapse(scores: Mapping[str, float]) -> str | None:
    """Why rows with these ``scores`` have collapsed; None where they have not.

    A recall of 0 says so only where real rows of other patients have some: of two patients of a
    class neither lies within the other's rows.
    """
    recall, diversity = scores.get("recall"), scores.get("diversity")
    usual = scores.get("recall_null", 0.0)
    if diversity is not None and diversity < LEAST_DIVERSITY:
        return f"diversity {diversity:.2f}, below {LEAST_DIVERSITY} of the real rows'"
    if recall == 0 and usual > 0:
        return f"recall 0 (real rows of other patients: {usual:.2f})"
    return None


def _pooled(store: Store) -> np.ndarray:
    """(n, d) float32, streamed."""
    extract = extractor_of(store)[1]
    batches = store.batches(World.single(), 64, seed=0, epoch=0, shuffle=False, drop_last=False)
    return np.concatenate([extract(batch.x.float()) for batch in batches])
