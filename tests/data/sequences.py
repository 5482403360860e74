"""Scans of several channels: phantoms with four sequences, and pictures in colour."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from medaug.data.phantom import write_cohort
from medaug.spec.data import PhantomSpec

SEQUENCES = ("flair", "t1", "t1ce", "t2")
TINT = {"benign": (150, 60, 140), "malignant": (150, 105, 95)}
"""Mean colours of equal luma, so that grey tells the classes apart no more than a coin."""


def four_sequences(root: Path, patients: int, side: int = 32, seed: int = 0) -> None:
    """BraTS folders with all four sequences: the phantom's FLAIR, and three made of it."""
    spec = PhantomSpec(patients=patients, slices=(3, 4), positive_fraction=0.5, seed=seed)
    write_cohort(spec, side, root)
    for path in sorted(root.rglob("*_flair.nii.gz")):
        flair = nib.load(path)
        x = np.asarray(flair.dataobj).astype(np.float64)
        mask = np.asarray(nib.load(str(path).replace("flair", "seg")).dataobj) > 0
        head = x > 0
        others = {
            "t1": np.where(head, 1800 - 0.5 * x, 0),
            "t1ce": np.where(head, 1800 - 0.5 * x + 700 * mask, 0),
            "t2": np.where(head, 0.8 * x + 90, 0),
        }
        for name, voxels in others.items():
            volume = nib.Nifti1Image(np.rint(voxels).clip(0).astype(np.int16), flair.affine)
            nib.save(volume, str(path).replace("flair", name))


def coloured(path: Path, label: str, patient: int, side: int = 32) -> np.ndarray:
    """A picture whose colour, and not its grey, tells the class; (side, side, 3) uint8."""
    rng = np.random.default_rng([patient, *path.stem.encode()])
    texture = gaussian_filter(rng.standard_normal((side, side)), 1)
    person = 6 * np.random.default_rng(patient).standard_normal()
    grey = person + 25 * texture / texture.std()
    pixels = np.array(TINT[label])[None, None] + grey[..., None]
    pixels = pixels.clip(0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def colour_folders(root: Path, patients: int, side: int = 32, each: int = 2) -> None:
    """``root/<class>/p<patient>_<k>.png``."""
    for patient in range(patients):
        label = ("benign", "malignant")[patient % 2]
        for k in range(each):
            coloured(root / label / f"p{patient}_{k}.png", label, patient, side)
    lines = [
        f"{c}/p{p}_{k}.png,p{p}"
        for p in range(patients)
        for k in range(each)
        for c in [("benign", "malignant")[p % 2]]
    ]
    (root / "patients.csv").write_text("\n".join(["file,patient", *lines]) + "\n")
