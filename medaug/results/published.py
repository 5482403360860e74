"""The four papers' own numbers as leaderboard rows, with the flags that they earn.

Facts and page references: NETWORKS 1.4, 2, 3 and 4. The floor and the gain are judged by the code
that judges our own runs; the intervals, which the papers do not give, follow from the numbers of
test patients and images that they do give.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medaug.metrics.significance import published_balanced_accuracy, wilson_interval
from medaug.results.rows import NO_GAIN, REFERENCE, verdict

Bounds = tuple[float, float, float]
"""(value, low, high): 95 %."""


@dataclass(frozen=True)
class PublishedRow:
    """One line of a paper's table; None where the paper gives nothing."""

    paper: str
    arm: str
    """Its name in ``jobs/``."""
    kind: str
    """Our kind of arm that it corresponds to."""
    synthetic: bool
    n_synthetic: int | None
    accuracy: float | None
    test_images: int | None = None
    recalls: Mapping[str, float] | None = None
    """By class."""
    gate: tuple[str, ...] = ()
    """Why it could not be ranked, besides what all rows of its paper share."""

    @property
    def title(self) -> str:
        return f"{self.arm} +{self.n_synthetic}" if self.n_synthetic else self.arm


@dataclass(frozen=True)
class JudgedRow:
    """A published row and what it shows."""

    row: PublishedRow
    balanced_accuracy: Bounds | None
    gain: Bounds | None
    """Over the paper's best row without synthetic data: of balanced accuracy where recalls are
    published, else of accuracy."""
    reference: str | None
    flags: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        keys = ("value", "low", "high")
        return {
            "paper": self.row.paper,
            "title": self.row.title,
            "synthetic": self.row.synthetic,
            "n_synthetic": self.row.n_synthetic,
            "accuracy": self.row.accuracy,
            "recalls": dict(self.row.recalls) if self.row.recalls else None,
            "balanced_accuracy": _named(keys, self.balanced_accuracy),
            "gain": _named(keys, self.gain),
            "reference": self.reference,
            "flags": list(self.flags),
        }


TITLES = {
    "A": "Mehra, Soliman, Sahoo: U-Net features + ACGAN, HGG/LGG brain MRI (arXiv 2209.14097)",
    "B": "DCGAN 32x32 head CT + ResNet-50",
    "C": "Namozov, Cho 2018: classical x4 augmentation + 12-layer CNN, brain CT",
    "D": "Kora Venu, Ravula 2021: DCGAN 128x128 chest X-ray + separable CNN",
}

_ONE_SEED = "one seed, no interval"

REPRODUCED: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "A": {
        _ONE_SEED: {"sweep.seeds": [0]},
        "11 test patients: the 95 % range of its accuracy is .44 to .77": {
            "split.eval_fraction": 0.109
        },
        "test patients chose the U-Net epoch and the number of synthetic rows": {
            "split.val_fraction": 0.0
        },
        "slices without tumour carry their patient's grade": {"data.slice_policy": "all"},
        "the GAN's class loss is taken of probabilities, as in its reference code": {
            "arms.acgan.aux_loss": "nll_on_prob"
        },
        "no duplicate and no classical arm": {"arms.duplicate": None, "arms.classical": None},
        "always answering HGG scores .635 accuracy, more than either row": {},
        "its two recalls make .50 accuracy, not the .524 printed": {},
    },
    "B": {
        _ONE_SEED: {"sweep.seeds": [0]},
        "split by image, but the 200 images are about 99 groups of near-copies": {
            "split.unit": "image"
        },
        "22 test images: one of them is .045 of accuracy": {
            "split.eval_fraction": 0.11,
            "split.val_fraction": 0.191,
        },
        "its test rows are impossible with its own split of 144/34/22": {},
        "its discriminator as described has 576,129 parameters, not the 791,169 printed": {},
    },
    "C": {
        _ONE_SEED: {"sweep.seeds": [0]},
        "the augmented arm took four times the optimiser steps": {"protocol": "as_published"},
        "split by image, with no validation images mentioned": {
            "split.unit": "image",
            "split.val_fraction": 0.0,
        },
        "a third output neuron that is never a target": {"classifier.n_out": 3},
        "72.611 % and 92.25 % are not multiples of 1/100, its number of test images": {},
    },
    "D": {
        _ONE_SEED: {"sweep.seeds": [0]},
        "all images cut again at random: 1172 to test, not the publisher's 624": {
            "split.unit": "image",
            "split.eval_fraction": 0.2,
        },
        "about 85 % of its test normals were probably seen by the GAN": {
            "split.generator_rows": "publisher_train"
        },
        "no row without augmentation": {"arms.none": None},
        "its 'AUC' is the balanced accuracy of hard labels": {},
        "its Fréchet distance of 1.289 is on 768 features, comparable with no other": {},
    },
}
"""Paper -> what is wrong with it -> the settings of ``jobs/*_as_published.yaml`` that bring it back
(None: left out there); none where it lies in the paper's arithmetic."""

FLAWS: Mapping[str, tuple[str, ...]] = {paper: tuple(flaws) for paper, flaws in REPRODUCED.items()}

ROWS = (
    PublishedRow(
        *("A", "none", "none", False, 0, 0.61, 570, {"HGG": 0.95, "LGG": 0.05}),
        gate=("test patients chose the U-Net epoch",),
    ),
    PublishedRow(
        *("A", "acgan", "acgan", True, 1158, 0.524, 570, {"HGG": 0.569, "LGG": 0.384}),
        gate=("test patients chose the number of rows",),
    ),
    PublishedRow(
        *("B", "dcgan", "dcgan", True, None, 0.7651, 22),
        gate=("near-copies across its split",),
    ),
    PublishedRow("C", "none", "none", False, 0, 0.72611, 100),
    PublishedRow(
        *("C", "times4", "classical", False, 1500, 0.9225, 100),
        gate=("not the same number of optimiser steps as 'none'",),
    ),
    PublishedRow("D", "flip", "classical", False, None, 1112 / 1172, 1172),
    PublishedRow(
        *("D", "dcgan", "dcgan", True, None, 1119 / 1172, 1172),
        gate=("its generator has probably seen test patients",),
    ),
)

TEST_ROWS = {"A": {"HGG": (362, 7), "LGG": (208, 4)}}
"""Paper -> class -> (slices, patients) of its test set."""


def published(paper: str | None = None) -> tuple[JudgedRow, ...]:
    """The rows of ``paper`` (A, B, C or D), or of all four, each with the flags that it earns."""
    return tuple(_judged(row) for row in ROWS if paper in (None, row.paper))


def _judged(row: PublishedRow) -> JudgedRow:
    peers = [other for other in ROWS if other.paper == row.paper]
    balanced = _balanced_accuracy(row)
    reference = max((p for p in peers if not p.synthetic), key=_merit, default=None)
    reasons = ["1 seed, fewer than 3", *row.gate]
    if balanced is None:
        reasons.append("no class recalls at hand, so no balanced accuracy")
    if not any(peer.kind == "none" for peer in peers):
        reasons.append("no arm 'none' to compare with")
    missing = {"duplicate", "classical"} - {peer.kind for peer in peers}
    if row.synthetic and missing:
        reasons.append(f"no {' and no '.join(sorted(missing))} arm")
    flags = [f"not rankable: {why}" for why in reasons]
    if balanced is not None and row.recalls:
        flags += verdict(balanced[1], list(row.recalls.values()))
    gain = _gain(row, reference) if reference is not None else None
    if row is reference:
        flags.append(REFERENCE)
    elif gain is None or not gain[1] > 0:
        flags.append(NO_GAIN)
    return JudgedRow(row, balanced, gain, reference.title if reference else None, tuple(flags))


def _merit(row: PublishedRow) -> float:
    """What the best row without synthetic data is chosen by."""
    return sum(row.recalls.values()) / len(row.recalls) if row.recalls else row.accuracy or 0.0


def _balanced_accuracy(row: PublishedRow) -> Bounds | None:
    if row.recalls is None or row.paper not in TEST_ROWS:
        return None
    sizes = [TEST_ROWS[row.paper][name] for name in row.recalls]
    rows, patients = zip(*sizes, strict=True)
    return published_balanced_accuracy(list(row.recalls.values()), rows, patients)


def _gain(row: PublishedRow, reference: PublishedRow) -> Bounds | None:
    """Difference of two independent scores, by recovering variances from their intervals (Zou &
    Donner 2008). The papers' pairs are not independent, but they do not print what would tell."""
    ours, theirs = _balanced_accuracy(row), _balanced_accuracy(reference)
    if ours is None or theirs is None:
        ours, theirs = _accuracy(row), _accuracy(reference)
    if ours is None or theirs is None:
        return None
    if row is reference:
        return 0.0, 0.0, 0.0
    difference = ours[0] - theirs[0]
    below = math.hypot(ours[0] - ours[1], theirs[2] - theirs[0])
    above = math.hypot(ours[2] - ours[0], theirs[0] - theirs[1])
    return difference, difference - below, difference + above


def _accuracy(row: PublishedRow) -> Bounds | None:
    """With its interval as if all test images were independent, which flatters them."""
    if row.accuracy is None or row.test_images is None:
        return None
    return row.accuracy, *wilson_interval(row.accuracy, row.test_images)


def _named(keys: Sequence[str], bounds: Bounds | None) -> dict[str, float] | None:
    return None if bounds is None else dict(zip(keys, bounds, strict=True))
