"""Looking for copies between patients in a slice store, before anything is trained on it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medaug.audit.leakage import FILE, Image, Leak, Leakage, read_leakage
from medaug.metrics.leakage import Pair, crossing, find_duplicates
from medaug.storage.artifacts import Artifacts
from medaug.storage.files import write_whole
from medaug.store import Store

SLICES_OF_VOLUME = 5
"""A copied volume shows in any of its slices. Those near the vertex are left out, because there all
heads are the same bright oval."""
SIDE = 128
"""Pixels. At 64, smooth slices of different patients pass for copies: 323 pairs among 1,861 slices
of 61 head CTs. At 128 there is none, and known copies are still all found."""
READ_ROWS = 64
_IMAGES_OF_0_1 = ("class_folders", "head_ct", "ct_ich", "image_list")
ROLES = ("train", "val", "eval", "test")


def report_path(artifacts: Artifacts, slices: str) -> Path:
    """``<storage>/stores/<slices>.leakage.json``."""
    return artifacts.store_path(slices).with_name(f"{slices}.{FILE}")


def scan_slices(artifacts: Artifacts, slices: str) -> Leakage:
    """Scan the store named ``slices``, or read what an earlier scan of it has found."""
    path = report_path(artifacts, slices)
    if (known := read_leakage(path)) is not None:
        return known
    found = scan(artifacts.open_store(slices))
    _write(path, found)
    return found


def note_leakage(folder: Path, found: Leakage) -> Path:
    """Keep ``found`` with the run in ``folder``, which may outlive its stores."""
    _write(folder / FILE, found)
    return folder / FILE


def scan(slices: Store) -> Leakage:
    """Exact and near copies between different patients."""
    chosen = slices.select(_rows_to_compare(slices))
    ids = [str(row) for row in range(len(chosen))]
    pairs = find_duplicates(SmallImages(chosen), ids, patients=chosen.patients.tolist())
    images = [
        Image(patient, index)
        for patient, index in zip(
            chosen.patients.tolist(), chosen.slice_index.tolist(), strict=True
        )
    ]
    folds = _folds_divided(pairs, chosen)
    leaks = tuple(
        Leak(
            images[int(pair.a)],
            images[int(pair.b)],
            pair.kind,
            round(pair.similarity, 4),
            tuple(folds[pair]),
        )
        for pair in pairs
    )
    sealed = np.isin(chosen.units, slices.splits.test).sum() if slices.splits else 0
    return Leakage(slices.name, len(slices), len(chosen), int(sealed), leaks)


def copies_between(ours: Store, theirs: Store) -> list[tuple[Image, Image]]:
    """Exact and near copies that two stores of equally large slices have in common: the image of
    ``ours`` and that of ``theirs``. Within either nothing is looked for."""
    stores = [store.select(_rows_to_compare(store)) for store in (ours, theirs)]
    images = Joined([SmallImages(store) for store in stores])
    owners = [side for side, store in zip("ab", stores, strict=True) for _ in range(len(store))]
    named = [
        Image(patient, index)
        for store in stores
        for patient, index in zip(store.patients.tolist(), store.slice_index.tolist(), strict=True)
    ]
    ids = [str(row) for row in range(len(images))]
    pairs = find_duplicates(images, ids, patients=owners)
    rows = (sorted((int(pair.a), int(pair.b))) for pair in pairs)
    return [(named[a], named[b]) for a, b in rows]


def _folds_divided(pairs: Sequence[Pair], chosen: Store) -> Mapping[Pair, list[int]]:
    """The folds in which a pair's images (row numbers of ``chosen``) have different roles."""
    divided: dict[Pair, list[int]] = {pair: [] for pair in pairs}
    splits, units = chosen.splits, chosen.units.tolist()
    for fold in range(len(splits.folds) if splits and pairs else 0):
        assert splits is not None
        roles = {role: splits.patients(role, fold) for role in ROLES}
        role_of = {unit: role for role, named in roles.items() for unit in named}
        part = {str(row): role_of[unit] for row, unit in enumerate(units)}
        for pair in crossing(pairs, part):
            divided[pair].append(fold)
    return divided


def _rows_to_compare(slices: Store) -> np.ndarray:
    """Row numbers, ascending: every 2-D image; of each volume some slices of its middle half, at
    the same places, so that of a volume and its copy the same ones are taken."""
    rows = np.arange(len(slices))
    if not of_images(slices):
        places = np.linspace(0.25, 0.75, SLICES_OF_VOLUME)
        of_volume = (np.flatnonzero(slices.volumes == name) for name in np.unique(slices.volumes))
        inner = [own[np.unique((places * len(own)).astype(int))] for own in of_volume]
        rows = np.sort(np.concatenate(inner))
    return rows


def of_images(slices: Store) -> bool:
    """Whether the rows are 2-D images, and not slices of volumes."""
    extra = slices.manifest["extra"]
    if "images" in extra:
        return bool(extra["images"])
    return extra.get("data", {}).get("layout") in _IMAGES_OF_0_1


class SmallImages(Sequence[np.ndarray]):
    """The mean of each row's channels, (S, S) float32, S at most :data:`SIDE`; read on demand."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._start, self._block = 0, np.empty(0)

    def __len__(self) -> int:
        return len(self._store)

    def __getitem__(self, row: Any) -> Any:
        if self._start <= row < self._start + len(self._block):
            return self._block[row - self._start]
        # One after the other they come in blocks, here and there singly.
        n_rows = 1 if row % READ_ROWS else READ_ROWS
        x = self._store.read(slice(row, row + n_rows)).x.float().mean(1, keepdim=True)
        if x.shape[-1] > SIDE:
            x = torch.nn.functional.interpolate(
                x, size=(SIDE, SIDE), mode="bilinear", antialias=True
            )
        block = x[:, 0].numpy().copy()
        if n_rows > 1:
            self._start, self._block = row, block
        return block[0]


class Joined(Sequence[np.ndarray]):
    """The images of several stores, one after the other."""

    def __init__(self, parts: Sequence[Sequence[np.ndarray]]) -> None:
        self._parts = parts

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __getitem__(self, row: Any) -> Any:
        for part in self._parts:
            if row < len(part):
                return part[row]
            row -= len(part)
        raise IndexError(row)


def _write(path: Path, found: Leakage) -> None:
    write_whole(path, json.dumps(found.to_json(), indent=1).encode())
