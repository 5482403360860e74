"""A site key for tests, and small cohorts in the BraTS layout."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medaug.data.privacy import KEY_ENV

LPS = np.diag([-1.0, -1.0, 2.0, 1.0])


@pytest.fixture(scope="session")
def key_file(tmp_path_factory):
    return tmp_path_factory.mktemp("site") / "site.key"


@pytest.fixture(autouse=True)
def _site_key(monkeypatch, key_file):
    monkeypatch.setenv(KEY_ENV, str(key_file))


@pytest.fixture
def write_patient():
    """Write one patient: (root/class, id, seed) -> (x_XYZ, mask_XYZ) as stored."""

    def write(parent: Path, patient: str, seed: int, shape=(16, 16, 4)):
        rng = np.random.default_rng(seed)
        x = rng.integers(1, 1000, shape, dtype=np.int16)
        mask = np.zeros(shape, np.uint8)
        mask[4:10, 5:9, 1 : shape[2] - 1] = 2
        folder = parent / patient
        folder.mkdir(parents=True)
        nib.save(nib.Nifti1Image(x, LPS), folder / f"{patient}_flair.nii.gz")
        nib.save(nib.Nifti1Image(mask, LPS), folder / f"{patient}_seg.nii.gz")
        return x, mask

    return write


@pytest.fixture
def write_cohort(write_patient):
    """Write n patients of each class below root; patient -> (x_XYZ, mask_XYZ)."""

    def write(root: Path, n: int = 4):
        return {
            f"{name}_{i:02d}": write_patient(root / name, f"{name}_{i:02d}", 100 * label + i)
            for label, name in enumerate(("LGG", "HGG"))
            for i in range(n)
        }

    return write
