"""What is in the files: pixels that were misread or lost, and their neighbours."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel import orientations
from PIL import Image

from tests.data.dicom_series import voxels, write_series
from tests.data.folders import AB, Build, Is, ab, noise, picture

GRADES = ("LGG", "HGG")


def written(name: str, save: Callable[[np.random.Generator, Path, int], None], wanted: Is) -> Build:
    """Twelve files of two classes."""

    def build(root: Path) -> Is:
        for i in range(12):
            path = root / ab(i) / name.format(i)
            path.parent.mkdir(parents=True, exist_ok=True)
            save(noise(i), path, i)
        return wanted

    return build


def pixels(*shape: int, mode: str | None = None, opaque: bool = True) -> Callable[..., None]:
    def save(rng: np.random.Generator, path: Path, i: int) -> None:
        x = rng.integers(0, 255, (20, 20, *shape), np.uint8)
        if mode in ("RGBA", "LA") and opaque:
            x[..., -1] = 255
        Image.fromarray(x, mode).save(path)

    return save


def palette(rng: np.random.Generator, path: Path, i: int) -> None:
    image = Image.fromarray(rng.integers(0, 255, (20, 20, 3), np.uint8))
    image.convert("P", palette=Image.Palette.ADAPTIVE).save(path)


def deep_grey(rng: np.random.Generator, path: Path, i: int) -> None:
    Image.fromarray(rng.integers(0, 65000, (20, 20)).astype(np.uint16)).save(path)


def twelve_bits(rng: np.random.Generator, path: Path, i: int) -> None:
    Image.fromarray(rng.integers(0, 4000, (20, 20)).astype(np.uint16)).save(path)


def two_valued(rng: np.random.Generator, path: Path, i: int) -> None:
    Image.fromarray(rng.random((20, 20)) > 0.5).save(path)


def turned(rng: np.random.Generator, path: Path, i: int) -> None:
    image = Image.fromarray(rng.integers(0, 255, (20, 30), np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(path, exif=exif, quality=95)


def png_or_jpeg(rng: np.random.Generator, path: Path, i: int) -> None:
    x = rng.integers(0, 255, (20, 20), np.uint8)
    Image.fromarray(x).save(path, format="PNG" if i % 6 == 0 else "JPEG")


def some_transparent(rng: np.random.Generator, path: Path, i: int) -> None:
    x = rng.integers(0, 255, (20, 20, 4), np.uint8)
    Image.fromarray(x if i in (1, 3) else x[..., 0]).save(path)


def slice_of_dicom(rng: np.random.Generator, path: Path, i: int) -> None:
    folder = path.parent / "series"
    write_series(folder, voxels(i, (8, 9, 1)))
    next(folder.iterdir()).rename(path)
    shutil.rmtree(folder)


def mixed(*endings: str, below: str = "") -> Build:
    def build(root: Path) -> Is:
        for i in range(16):
            folder = root / ab(i) / (below if i % 4 > 1 else "")
            picture(folder / f"m{i}{endings[(i // 2) % len(endings)]}")
        return Is(16, 16, AB)

    return build


def blank_pictures(root: Path) -> Is:
    for i in range(12):
        path = root / ab(i) / f"m{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20, 20), 7, np.uint8)).save(path)
    return Is(12, 12, AB, says=("odd: 12 scans show nothing",))


def volumes(
    shape: Sequence[int],
    spacing_mm: Sequence[float],
    *says: str,
    axes: str = "LPS",
    one: bool = False,
) -> Build:
    """Of LPS extent ``shape``, stored along ``axes``; ``one``: of the first patient only."""

    def build(root: Path) -> Is:
        for i in range(12):
            path = root / GRADES[i % 2] / f"P{i}" / f"P{i}_t1.nii.gz"
            path.parent.mkdir(parents=True)
            plain = one and i
            n, mm = ((16, 16, 4), (1, 1, 2)) if plain else (shape, spacing_mm)
            x = noise(i).integers(1, 1000, n, dtype=np.int16)
            image = nib.Nifti1Image(x, np.diag([-mm[0], -mm[1], mm[2], 1.0]))
            change = orientations.ornt_transform(
                orientations.axcodes2ornt("LPS"), orientations.axcodes2ornt(axes)
            )
            nib.save(image.as_reoriented(change), path)
        return Is(12, 12, GRADES, says=says)

    return build


SAGITTAL = r"note: slices are sagittal and far apart: taken as they are"
OBLONG = r"note: pixels are not square: resampled to their smaller side"
FINE = Is(12, 12, AB)


def said(*lines: str) -> Is:
    return Is(12, 12, AB, says=lines)


def refuses(reason: str) -> Is:
    return Is(12, 12, AB, init_refuses=rf"class benign: 6 of 6 scans refused: {reason}")


FOLDERS: dict[str, Build] = {
    "colour": written("m{}.png", pixels(3), said("colour: 12 of 12 images are in colour")),
    "opaque_alpha": written("m{}.png", pixels(4, mode="RGBA"), said("alpha channel that hides")),
    "grey_alpha": written("m{}.png", pixels(2, mode="LA"), said("alpha channel that hides")),
    "transparent": written("m{}.png", pixels(4, mode="RGBA", opaque=False), refuses("has transp")),
    "some_transparent": written(
        *("m{}.png", some_transparent),
        Is(12, 12, AB, init_refuses="class malignant: 2 of 6 scans refused: has transparent"),
    ),
    "palette": written("m{}.png", palette, said(r"palette or a transparent colour: applied \(12")),
    "sixteen_bit": written("m{}.png", deep_grey, said(r"is 16-bit: read from 0 to 65535 \(12")),
    "twelve_bit": written("m{}.png", twelve_bits, said("65535, of which it uses 12 bits \\(12")),
    "two_valued": written("m{}.png", two_valued, FINE),
    "turned": written("m{}.jpg", turned, said(r"turned upright \(12", r"pixels: 30x20")),
    "cmyk": written("m{}.jpg", pixels(4, mode="CMYK"), refuses("colour mode CMYK")),
    "content_decides": written("m{}.jpg", png_or_jpeg, said(r"is PNG and named as JPEG.* \(2 ")),
    "dicom_named_png": written("m{}.png", slice_of_dicom, FINE),
    "dicom_without_ending": written("IM{}", slice_of_dicom, said("12 DICOM files are images")),
    "gif": written("m{}.gif", pixels(), refuses("is no image by its name")),
    "blank_pictures": blank_pictures,
    "mixed_endings": mixed(".png", ".tif", ".bmp", ".jpg"),
    "mixed_endings_in_capitals": mixed(".PNG", ".TIFF", ".jpeg", ".BMP"),
    "mixed_endings_deeper": mixed(".png", ".tif", ".jfif", ".jpe", below="more"),
    "thick_sagittal": volumes((6, 32, 32), (6, 1, 1), SAGITTAL, "class LGG: 6 patients, 36 sl"),
    "thick_sagittal_as_stored": volumes(
        *((6, 32, 32), (6, 1, 1), SAGITTAL, "class LGG: 6 patients, 36 slices"), axes="PSL"
    ),
    "thick_coronal": volumes(
        *((32, 8, 32), (1, 7, 1), "note: slices are coronal", "class LGG: 6 patients, 48 slices")
    ),
    "one_sagittal": volumes((6, 16, 16), (6, 1, 1), rf"{SAGITTAL}.* \(1 scans\)", one=True),
    "oblong_pixels": volumes((16, 32, 5), (2, 1, 3), OBLONG, "class LGG: 6 patients, 30 slices"),
    "thick_axial": volumes((16, 16, 4), (1, 1, 8), "1 x 1 mm, 8 mm between slices"),
    "narrow": volumes((8, 40, 5), (1, 1, 1), "odd: 12 volumes are thin in the plane"),
}  # fmt: skip
