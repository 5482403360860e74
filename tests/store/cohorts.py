"""A study's slice store from arrays: what is left of a cohort when its scans have been read."""

from __future__ import annotations

import numpy as np

from medaug.data.splits import make_splits
from medaug.spec import StudySpec
from medaug.storage.artifacts import Artifacts
from medaug.store import Provenance, Store, StoreSchema, StoreWriter

SLICES = "slices-0123456789ab"


def patients_of(n: int) -> list[str]:
    """Their pseudonyms."""
    return [f"p-{number:012x}" for number in range(n)]


def write_cohort(
    study: StudySpec, x: np.ndarray, label: np.ndarray, mask: np.ndarray | None = None
) -> Store:
    """The study's slice store: images (patients, slices, side, side) float32, their patients'
    classes (patients,), and one mask (side, side) for all of them."""
    n, each, side = x.shape[:3]
    patients = patients_of(n)
    moments = {
        name: [float(own.size), float(own.sum(dtype=float)), float((own.astype(float) ** 2).sum())]
        for name, own in zip(patients, x, strict=True)
    }
    owner = np.repeat(patients, each)
    masks = {}
    if mask is not None:
        drawn = np.broadcast_to(mask, (len(owner), side, side)).astype(np.uint8)
        masks = {"mask": drawn, "tumour_pixels": int(mask.sum())}
    with StoreWriter(
        Artifacts(study.storage).store_path(SLICES),
        StoreSchema((1, side, side), "float32", (side, side) if masks else None),
        provenance=Provenance("slices", "0" * 12, (), (), synthetic=False),
        classes=study.data.classes,
        splits=make_splits(patients, label.tolist(), study.split),
        extra={"moments": moments, "parts": {}},
    ) as writer:
        writer.write(
            x.reshape(-1, 1, side, side),
            label=label.repeat(each),
            patient=owner,
            volume=owner,
            slice_index=np.tile(np.arange(each), n),
            **masks,
        )
    return Artifacts(study.storage).open_store(SLICES)
