"""Whether rows from elsewhere hold copies of patients who are scored: then they prove nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medaug.audit.scan import Joined, SmallImages
from medaug.metrics.leakage import Pair, find_duplicates
from medaug.metrics.neighbours import near_copies, nearest
from medaug.store import Store

LOOKED_AT, UNLIKE = 256, 4.0
"""Images whose brightness is compared, and the ratio of means from which it is said."""
EXACT = 1e-4
"""Distance of a copy to its original, in units of the scored rows' spread."""


def held_out_rows(rows: Store, folds: Sequence[int]) -> Store:
    """The rows of all who choose or are scored in ``folds``, sealed patients included."""
    splits = rows.splits
    assert splits is not None
    units = {*splits.test}
    for fold in folds:
        units |= {*splits.patients("val", fold), *splits.patients("eval", fold)}
    return rows.select(np.isin(rows.units, sorted(units)))


def unlike_in_brightness(given: Store, real: Store) -> str:
    """How much brighter or darker images in [0, 1] are than real ones, in a line; empty where they
    are much alike. Pictures of 12 bits in files of 16 beside those of a tool that scales them to
    the whole range are not."""
    theirs, ours = map(_brightness, (given, real))
    if min(theirs, ours) <= 0 or 1 / UNLIKE <= theirs / ours <= UNLIKE:
        return ""
    return (
        f"its images are {theirs / ours:.2g} times as bright as the study's "
        f"({theirs:.2g} on average, not {ours:.2g})"
    )


def _brightness(store: Store) -> float:
    """Mean of images from all over the store, in which those of a class may be neighbours."""
    rows = np.linspace(0, len(store) - 1, min(LOOKED_AT, len(store)), dtype=np.int64)
    return float(store.read(rows).x.float().mean())


def of_pictures(given: Store) -> bool:
    """Whether the rows are images, which are compared as such; of arrays it was written down."""
    return bool(given.manifest["extra"].get("pictures", True))


@dataclass(frozen=True)
class Copied:
    """Which given images are pictures of held-out patients."""

    pairs: tuple[Pair, ...]
    """``a``: the row number of the given image, ``b``: that of the held-out one."""
    given: int
    usual: float
    """Share of the held-out images that have a near-copy in another patient: where a picture is so
    coarse that all heads are alike, near-copies say nothing. Looked at only if there are some."""

    @property
    def images(self) -> int:
        """How many of the given images are copies."""
        return len({pair.a for pair in self.pairs})

    @property
    def refused(self) -> bool:
        """Whether an image is an exact copy, or more than twice as many as usual are near ones."""
        exact = any(pair.kind == "exact" for pair in self.pairs)
        return exact or self.images > 2 * self.usual * self.given


def copied_images(given: Store, held_out: Store) -> Copied:
    """Compare every given image with every held-out one (:mod:`medaug.metrics.leakage`)."""
    n, real = len(given), SmallImages(held_out)
    both = Joined([SmallImages(given), real])
    ids = [str(row) for row in range(len(both))]
    found = find_duplicates(both, ids, patients=["given"] * n + ["real"] * len(held_out))
    pairs = tuple(Pair(p.a, str(int(p.b) - n), p.kind, p.similarity) for p in found)
    usual = 0.0
    if pairs and pairs[0].kind == "near":
        alike = find_duplicates(real, ids[: len(real)], patients=held_out.patients.tolist())
        usual = len({row for pair in alike for row in (pair.a, pair.b)}) / len(held_out)
    return Copied(pairs, n, usual)


def copied_features(
    given: np.ndarray, held_out: np.ndarray, patients: np.ndarray, train: np.ndarray
) -> tuple[int, float, float]:
    """How many of the ``given`` features (n, d) are exact copies of held-out ones, and the lower
    bound of the share that are near-copies beside that of real training rows.

    A row is a near-copy of a held-out patient if it singles him out as only 5 % of the real rows of
    training patients do (:func:`medaug.metrics.neighbours.near_copies`). With fewer than two
    held-out patients only exact copies can be told.
    """
    spread = float(np.sqrt(np.square(held_out - held_out.mean(axis=0)).sum(axis=1).mean())) or 1.0
    exact = int((nearest(given, held_out)[0] <= EXACT * spread).sum())
    if len(np.unique(patients)) < 2:
        return exact, 0.0, 0.0
    audit = near_copies(held_out, train, given, patients)
    return exact, audit.low, audit.heldout_rate
