"""Copies among images: exact, and near (resized, re-encoded, re-windowed, cropped by a little).

A data set whose images repeat under different names leaks across any random split. The scan has
three steps, each on what the one before left over:

1. *Exact*: equal bytes (SHA-256).
2. *Candidates*: correlation of 12 x 12 thumbnails, each image against slightly cropped versions of
   every other, so that a copy with another border is still among the nearest.
3. *Confirmation*: the pair is registered (affine, coarse to fine) and its correlation is taken
   octave by octave. A copy agrees at every scale that holds signal; a neighbouring slice, or the
   same anatomy in another patient, agrees at the coarse scales only.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F

from medaug.metrics.registration import agreement, register

NEAR = 0.95
"""A near copy explains r^2 >= 0.9 of the variance at every scale, once registered."""
FINEST = 128
"""Side in pixels of the grid on which a pair is confirmed (less when all images are smaller)."""
THUMBNAIL = 12
CROP = 0.03
"""Share of a side cut off when candidates are looked for; registration reaches further."""
CANDIDATE = 0.9
"""Least thumbnail correlation, and how many candidates each image may have."""
NEIGHBOURS = 10
SLACK = 0.1
"""How far below the threshold a pair may stay while it is only coarsely registered."""
NEAR_BY = 64
"""Of each picture so many others are compared with their borders cut off as well: those that are
most alike as they are."""
BORDER = 0.2
"""How much less alike than :data:`CANDIDATE` a copy with other borders may be as it is."""
BATCH = 32
KEPT_PIXELS = 2**27
"""Of all fine pictures together; more than 512 MiB of them are made when they are needed."""
CROPS = tuple(product((False, True), repeat=4))
"""Whether each border (left, right, top, bottom) is cut off."""


@dataclass(frozen=True)
class Pair:
    """Two images that are one: ``similarity`` is 1 for exact copies, else their correlation in
    the octave of scale where they agree least."""

    a: str
    b: str
    kind: Literal["exact", "near"]
    similarity: float


def find_duplicates(
    images: np.ndarray | Sequence[np.ndarray],
    ids: Sequence[str],
    *,
    patients: Sequence[str] | None = None,
    flips: bool = False,
    threshold: float = NEAR,
) -> list[Pair]:
    """Every pair of copies, the most similar first.

    Args:
        images: (N, H, W), or N grey images (H, W) of any sizes; any real dtype.
        ids: N different names.
        patients: N names; pairs of one patient are skipped (neighbouring slices are alike).
        flips: also find mirrored and quarter-turned copies, at eight times the cost.
        threshold: least similarity of a near copy.

    Constant images are left out: two black slices are no leak. An image keeps its ten best
    candidates, so of more than ten near copies of one picture some pairs may stay unnamed (the
    chain between them does not). Raises ValueError for ids that repeat, lengths that differ,
    images that are not (H, W), and non-finite pixels.
    """
    names = [str(name) for name in ids]
    owners = np.asarray(names if patients is None else patients, dtype=str)
    if not len(images) == len(set(names)) == len(names) == len(owners):
        raise ValueError(
            f"{len(images)} images, {len(set(names))} different ids and {len(owners)} patients: "
            "give one id of its own and one patient to every image"
        )
    groups, side = _exact_groups(images)
    found: list[tuple[int, int, Literal["exact", "near"], float]] = [
        (a, b, "exact", 1.0) for group in groups for a, b in combinations(group, 2)
    ]
    if len(groups) > 1:
        firsts = [group[0] for group in groups]
        pictures = _Pictures(images, firsts, side)
        for a, b, r in _near_pairs(pictures, owners[firsts], flips, threshold):
            found += [(i, j, "near", r) for i, j in product(groups[a], groups[b])]
    pairs = [
        Pair(names[min(a, b)], names[max(a, b)], kind, similarity)
        for a, b, kind, similarity in found
        if patients is None or owners[a] != owners[b]
    ]
    return sorted(pairs, key=lambda pair: (-pair.similarity, pair.a, pair.b))


def duplicate_groups(ids: Sequence[str], pairs: Sequence[Pair]) -> np.ndarray:
    """A group number per image, int64 (N,): images joined by any chain of pairs share one.

    Splitting by these groups instead of by image closes the leak where no patients are known.
    """
    from scipy.sparse import coo_array  # a third of a second that only this needs
    from scipy.sparse.csgraph import connected_components

    row = {name: i for i, name in enumerate(ids)}
    a, b = [row[pair.a] for pair in pairs], [row[pair.b] for pair in pairs]
    graph = coo_array((np.ones(len(pairs)), (a, b)), shape=(len(ids), len(ids)))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def crossing(pairs: Sequence[Pair], part: Mapping[str, str]) -> list[Pair]:
    """The pairs that leak: ``part`` (train, val, eval, test of each id) differs between them."""
    return [pair for pair in pairs if part[pair.a] != part[pair.b]]


def _exact_groups(images: Sequence[np.ndarray] | np.ndarray) -> tuple[list[list[int]], int]:
    """Rows with equal shape, dtype and bytes (constant images belong to none), and the side of the
    grid on which all are compared. Every image is looked at once and not kept."""
    groups: dict[bytes, list[int]] = defaultdict(list)
    smallest = FINEST
    for row in range(len(images)):
        image = np.asarray(images[row])
        if image.ndim != 2:
            raise ValueError(f"image {row} has shape {image.shape}: want grey images (H, W)")
        if not np.isfinite(image).all():
            raise ValueError(f"image {row} has non-finite pixels")
        if image.min() < image.max():
            smallest = min(smallest, *image.shape)
            kind = f"{image.shape}{image.dtype.str}".encode()
            groups[hashlib.sha256(kind + image.tobytes()).digest()].append(row)
    return list(groups.values()), max(16, smallest)


class _Pictures:
    """Images on one square grid, mean 0 and variance 1; registration undoes the change of aspect.

    Of each a coarse version is kept; the fine ones are made when a pair has to be told apart, or
    kept as well where they are few.
    """

    def __init__(
        self, images: Sequence[np.ndarray] | np.ndarray, rows: Sequence[int], side: int
    ) -> None:
        self._images, self._rows, self.side = images, rows, side
        self.sizes = list(dict.fromkeys(max(16, side // k) for k in (4, 2, 1)))
        self._kept: torch.Tensor | None = None
        if len(rows) * side * side <= KEPT_PIXELS:
            self._kept = torch.cat([self._made(chunk) for chunk in self._chunks()])
        fine = (self.fine(chunk) for chunk in self._chunks())
        made = [(_resized(x, self.sizes[0]), _unit(_resized(x, THUMBNAIL))) for x in fine]
        self.coarse, self.thumbnails = (torch.cat(column) for column in zip(*made, strict=True))

    def __len__(self) -> int:
        return len(self._rows)

    def fine(self, numbers: torch.Tensor) -> torch.Tensor:
        """(n,) -> (n, 1, S, S) float32."""
        return self._made(numbers) if self._kept is None else self._kept[numbers]

    def level(self, numbers: torch.Tensor, size: int) -> torch.Tensor:
        """The same at a side of one of :attr:`sizes`, the coarsest first."""
        if size == self.sizes[0]:
            return self.coarse[numbers]
        return _resized(self.fine(numbers), size)

    def cropped(self, turn: int, cut: int) -> torch.Tensor:
        """(16, n, T * T): thumbnails of the turned pictures with any of their borders cut off."""
        shrink = [_shrinking(self.side, cut, *ends) for ends in product((False, True), repeat=2)]
        made = []
        for chunk in self._chunks():
            x = _turned(self.fine(chunk), turn)[:, 0]
            of_columns = [x @ matrix.T for matrix in shrink]
            thumbnails = (
                shrink[2 * top + bottom] @ of_columns[2 * left + right]
                for left, right, top, bottom in CROPS
            )
            made.append(torch.stack([_unit(thumbnail) for thumbnail in thumbnails]))
        return torch.cat(made, dim=1)

    def _chunks(self) -> tuple[torch.Tensor, ...]:
        return torch.arange(len(self._rows)).split(256)

    def _made(self, numbers: torch.Tensor) -> torch.Tensor:
        rows = (self._rows[number] for number in numbers.tolist())
        images = (torch.tensor(np.asarray(self._images[row]), dtype=torch.float32) for row in rows)
        grid = torch.cat([_resized(image, self.side) for image in images])
        grid -= grid.mean(dim=(2, 3), keepdim=True)
        return grid / grid.std(dim=(2, 3), keepdim=True).clamp(min=1e-6)


def _resized(image: torch.Tensor, side: int) -> torch.Tensor:
    """(…, H, W) -> (N, 1, side, side), averaging when it shrinks."""
    stack = image.reshape(-1, 1, *image.shape[-2:])
    return F.interpolate(stack, size=(side, side), mode="bilinear", antialias=True)


def _near_pairs(
    pictures: _Pictures, owners: np.ndarray, flips: bool, threshold: float
) -> list[tuple[int, int, float]]:
    """(row, row, similarity) of the confirmed near copies, each pair once."""
    best: dict[tuple[int, int], float] = {}
    for turn in range(8 if flips else 1):
        rows_a, rows_b, theta = _candidates(pictures, turn, owners)
        if turn == 0:
            rows_a, rows_b, theta = _each_pair_once(rows_a, rows_b, theta)
        for start in range(0, len(rows_a), BATCH):
            chunk = slice(start, start + BATCH)
            a, b = rows_a[chunk], rows_b[chunk]
            similarity = _confirm(pictures, turn, a, b, theta[chunk], threshold)
            for i, j, r in zip(a.tolist(), b.tolist(), similarity.tolist(), strict=True):
                if r >= threshold:
                    pair = (min(i, j), max(i, j))
                    best[pair] = max(r, best.get(pair, 0.0))
    return [(a, b, r) for (a, b), r in best.items()]


def _turned(pictures: torch.Tensor, turn: int) -> torch.Tensor:
    """One of the eight symmetries of the square; 0 is the identity."""
    turned = torch.rot90(pictures, turn % 4, dims=(2, 3))
    return turned.flip(3) if turn >= 4 else turned


def _candidates(
    pictures: _Pictures, turn: int, owners: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows, rows of the turned pictures, and first warps of the pairs worth registering, the most
    similar thumbnails first. Every picture is compared with every other."""
    cut = max(1, round(CROP * pictures.side))
    thumbs, cropped = pictures.thumbnails, pictures.cropped(turn, cut)
    owner = torch.from_numpy(np.unique(owners, return_inverse=True)[1])
    plain = cropped[0]  # no border cut off
    n_near = min(NEAR_BY, len(pictures))
    found = []
    for rows in torch.arange(len(pictures)).split(max(1, min(256, 2**23 // len(pictures)))):
        alike = thumbs[rows] @ plain.T
        alike[owner[rows][:, None] == owner] = -1
        near = alike.topk(n_near, dim=1)
        # A border more or less moves a thumbnail by a fraction of its pixels.
        i, k = torch.nonzero(near.values >= CANDIDATE - BORDER, as_tuple=True)
        j = near.indices[i, k]
        best, which = torch.einsum("pt,cpt->pc", thumbs[rows][i], cropped[:, j]).max(dim=1)
        similarity = torch.full((len(rows), n_near), -1.0)
        similarity[i, k] = best
        crops = torch.zeros((len(rows), n_near), dtype=torch.int64)
        crops[i, k] = which
        top = similarity.topk(min(NEIGHBOURS, n_near), dim=1)
        i, k = torch.nonzero(top.values >= CANDIDATE, as_tuple=True)
        at = top.indices[i, k]
        found.append((top.values[i, k], rows[i], near.indices[i, at], crops[i, at]))
    r, a, b, chosen = (torch.cat(column) for column in zip(*found, strict=True))
    theta = torch.stack([_crop_warp(crop, cut, pictures.side) for crop in CROPS])[chosen]
    order = r.argsort(descending=True, stable=True)
    return a[order], b[order], theta[order]


def _each_pair_once(
    a: torch.Tensor, b: torch.Tensor, theta: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of (a, b) and (b, a), the first; registering both ways finds nothing more."""
    unordered = torch.stack([torch.minimum(a, b), torch.maximum(a, b)], dim=1).numpy()
    first = np.sort(np.unique(unordered, axis=0, return_index=True)[1])
    return a[first], b[first], theta[first]


def _unit(thumbnails: torch.Tensor) -> torch.Tensor:
    """(N, …, T, T) -> (N, T * T) whose inner products are correlations."""
    flat = thumbnails.flatten(1)
    return F.normalize(flat - flat.mean(dim=1, keepdim=True), dim=1)


def _shrinking(side: int, cut: int, before: bool, after: bool) -> torch.Tensor:
    """(T, side): one axis without ``cut`` pixels at the ends that are named, resized to a
    thumbnail's; resizing is linear and separable."""
    start, stop = cut * before, side - cut * after
    matrix = torch.zeros(THUMBNAIL, side)
    kept = torch.eye(stop - start)[None, None]
    matrix[:, start:stop] = F.interpolate(
        kept, size=(THUMBNAIL, stop - start), mode="bilinear", antialias=True
    )[0, 0]
    return matrix


def _crop_warp(crop: Sequence[bool], cut: int, side: int) -> torch.Tensor:
    """The (2, 3) warp from the cropped image's coordinates to those of the whole."""
    left, right, top, bottom = (cut * on / side for on in crop)
    return torch.tensor(
        [[1 - left - right, 0, left - right], [0, 1 - top - bottom, top - bottom]],
        dtype=torch.float32,
    )


def _confirm(
    pictures: _Pictures,
    turn: int,
    a: torch.Tensor,
    b: torch.Tensor,
    theta: torch.Tensor,
    threshold: float,
) -> torch.Tensor:
    """Least agreement of each pair over the octaves; 0 as soon as a coarse grid rules it out."""
    left = torch.arange(len(a))
    for level, size in enumerate(pictures.sizes):
        for iterations in (8,) if level == 0 else (0, 4):
            fixed = pictures.level(a[left], size)
            moving = _turned(pictures.level(b[left], size), turn)
            theta = register(fixed, moving, theta, iterations)
            r = agreement(fixed, moving, theta)
            keep = ~(r < threshold - SLACK)
            left, theta = left[keep], theta[keep]
            if not len(left):
                return torch.zeros(len(a))
    octaves = [
        agreement(
            pictures.level(a[left], size), _turned(pictures.level(b[left], size), turn), theta
        )
        for size in pictures.sizes
    ]
    least = torch.stack(octaves).nan_to_num(nan=torch.inf).amin(dim=0)
    similarity = torch.zeros(len(a))
    similarity[left] = torch.where(least.isinf(), 0.0, least)
    return similarity
