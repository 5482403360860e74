"""Who chooses, and what was seen of those who are scored: nothing, or the result says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medaug.errors import UserError
from medaug.storage.manifest import MANIFEST, parse_object, read_manifest, verified
from medaug.storage.results import Exposure, Seen
from medaug.store import Store

PROVEN = "proven"
VIOLATED = "violated as published"
DECLARED = "declared"
"""Rows that another tool has made, and what it was trained on is said, not seen."""
UNKNOWN = "unknown"
"""The same, and nobody says it."""


def choosing_rows(features: Store, fold: int) -> Store:
    """The rows that choose epochs, filter and threshold: ``val``. A split without them is a
    published one, where those who are scored chose."""
    val = features.split("val", fold)
    return val if len(val) else features.split("eval", fold)


def prove_lineage(rows: Store, features: Store, fold: int) -> None:
    """Refuse rows whose generator has seen a patient who is to be held out of its training.

    Raises:
        UserError: naming how many patients, and one of them.
    """
    if seen := _held_out(features, fold).intersection(rows.provenance.fitted_on):
        raise UserError(
            f"store {rows.name}: its generator was fitted on {len(seen)} held-out patients of fold "
            f"{fold} ({min(seen)}, …); fit it inside the training fold"
        )


def seen_by_weights(weights: Path, slices: Store, fold: int) -> tuple[str, ...] | None:
    """Whom a U-Net from a file was fitted on, as the description beside a medaug model says; None:
    nobody says it.

    Raises:
        UserError: on patients who are held out in this fold; names how many, and one of them.
        IntegrityError: the model is not what its manifest promises.
    """
    folder = weights.parent
    if not (folder / MANIFEST).is_file() or weights.name not in read_manifest(folder)["files"]:
        return None
    verified(folder, "fetch the model again")
    about = parse_object((folder / "config.json").read_bytes(), str(folder / "config.json"))
    if not isinstance(fitted_on := about.get("fitted_on"), list) or "made_from" in about:
        return None
    if seen := _held_out(slices, fold).intersection(fitted_on):
        raise UserError(
            f"segmenter.pretrain.weights: {weights} was fitted on {len(seen)} held-out patients of "
            f"fold {fold} ({min(seen)}, …); take weights that have seen none of this study's"
        )
    return tuple(fitted_on)


def _held_out(features: Store, fold: int) -> set[str]:
    assert features.splits is not None
    return {
        *features.splits.patients("val", fold),
        *features.splits.patients("eval", fold),
        *features.splits.test,
    }


def exposure_of(features: Store, fold: int, trained: Store, added: Store | None) -> Exposure:
    """What was seen before of those who are scored: 0 everywhere in the honest protocol."""
    scored = features.split("eval", fold)
    origin = None if added is None else added.provenance
    fitted_on = origin.fitted_on if origin and origin.synthetic else ()
    return Exposure(
        scored=Seen(patients=len(np.unique(scored.patients)), images=len(scored)),
        trained_on=_seen(features, scored, trained.units),
        chose=_seen(features, scored, choosing_rows(features, fold).units),
        seen_by_generator=_seen(features, scored, np.array(fitted_on, dtype=str)),
    )


def lineage_of(exposure: Exposure, added: Store | None = None, real: Store | None = None) -> str:
    """:data:`PROVEN`, unless a scored patient was trained on or seen by the generator of the
    ``added`` rows, or that, or the U-Net of the ``real`` ones, was not trained here alone."""
    if exposure.trained_on.patients + exposure.seen_by_generator.patients:
        return VIOLATED
    stores = [store for store in (added, real) if store is not None]
    sources = {store.manifest["extra"].get("made_from") for store in stores}
    if UNKNOWN in sources:
        return UNKNOWN
    return DECLARED if sources - {None} else PROVEN


def _seen(features: Store, scored: Store, units: np.ndarray) -> Seen:
    patients = np.unique(features.patients[np.isin(features.units, units)])
    return Seen(
        patients=len(np.intersect1d(patients, scored.patients)),
        images=int(np.isin(scored.units, units).sum()),
    )
