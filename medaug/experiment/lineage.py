"""Who chooses, and what was seen of those who are scored: nothing, or the result says so."""

from __future__ import annotations

import numpy as np

from medaug.errors import UserError
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
    assert features.splits is not None
    held_out = {
        *features.splits.patients("val", fold),
        *features.splits.patients("eval", fold),
        *features.splits.test,
    }
    if seen := held_out.intersection(rows.provenance.fitted_on):
        raise UserError(
            f"store {rows.name}: its generator was fitted on {len(seen)} held-out patients of fold "
            f"{fold} ({min(seen)}, …); fit it inside the training fold"
        )


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


def lineage_of(exposure: Exposure, added: Store | None = None) -> str:
    """:data:`PROVEN`, unless a scored patient was trained on or seen by the generator of the
    ``added`` rows, or that was not trained here."""
    if exposure.trained_on.patients + exposure.seen_by_generator.patients:
        return VIOLATED
    made_from = None if added is None else added.manifest["extra"].get("made_from")
    if made_from is None:
        return PROVEN
    return UNKNOWN if made_from == UNKNOWN else DECLARED


def _seen(features: Store, scored: Store, units: np.ndarray) -> Seen:
    patients = np.unique(features.patients[np.isin(features.units, units)])
    return Seen(
        patients=len(np.intersect1d(patients, scored.patients)),
        images=int(np.isin(scored.units, units).sum()),
    )
