"""Kinds of files that public sets have and that are read, or told by name."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np

from tests.data.dicom_series import voxels, write_series
from tests.data.folders import AB, LPS, Build, Is, ab, noise, picture, table, volume

N = 8


def analyze(path: Path, *seed: int | str, labels: bool = False) -> None:
    """An Analyze 7.5 pair."""
    path.parent.mkdir(parents=True, exist_ok=True)
    x = noise(str(path), *seed).integers(1, 1000, (12, 12, 4), dtype=np.int16)
    if labels:
        x = np.zeros_like(x)
        x[3:8, 3:8, 1:3] = 1
    nib.AnalyzeImage(x, None).to_filename(path)


def nifti_pair(path: Path, *seed: int | str, labels: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    x = noise(str(path), *seed).integers(1, 1000, (12, 12, 4), dtype=np.int16)
    nib.save(nib.Nifti1Pair(x, LPS), path)


UNKNOWN = r"note: Analyze 7.5: orientation unknown, slices are as stored \(8 scans\)"


def pairs(write: Callable[..., None], *says: str) -> Build:
    """The ``.img`` of a pair is used, not left out."""

    def build(root: Path) -> Is:
        for i in range(N):
            write(root / ab(i) / f"P{i}" / f"P{i}_t1.hdr")
        return Is(N, N, AB, says=("= 16 of scans and masks", *says))

    return build


def pairs_in_capitals(root: Path) -> Is:
    for i in range(N):
        folder = root / ab(i) / f"P{i}"
        analyze(folder / f"P{i}_t1.hdr")
        for path in sorted(folder.iterdir()):
            path.rename(path.with_suffix(path.suffix.upper()))
    return Is(N, N, AB, says=("= 16 of scans and masks",))


def oasis_as_downloaded(root: Path) -> Is:
    """Analyze pairs, pictures of them, and tissues (FSL_SEG) that are no tumours."""
    rows = []
    for i in range(1, 13):
        who = f"OAS1_{i:04d}_MR1"
        top = root / f"disc{1 + i // 7}" / who
        for k in (1, 2):
            analyze(top / f"RAW/{who}_mpr-{k}_anon.hdr")
            picture(top / f"RAW/{who}_mpr-{k}_anon_sag_66.gif")
        analyze(top / f"PROCESSED/MPRAGE/SUBJ_111/{who}_mpr_n4_anon_sbj_111.hdr")
        for end in ("", "_masked"):
            analyze(top / f"PROCESSED/MPRAGE/T88_111/{who}_mpr_n4_anon_111_t88{end}_gfc.hdr")
        analyze(top / f"FSL_SEG/{who}_mpr_n4_anon_111_t88_masked_gfc_fseg.hdr", labels=True)
        (top / f"FSL_SEG/{who}_mpr_n4_anon_111_t88_masked_gfc_fseg.txt").write_text("0.2")
        rows.append([who, "M", 70 + i, ("0", "0.5")[i % 2]])
    table(root / "oasis_cross-sectional.csv", "ID,M/F,Age,Group", rows)
    tissue = "left out: 24 files, a segmentation of tissues, anatomy or superpixels, no tumour's"
    return Is(12, 12, ("0", "0.5"), says=(tissue, "masks: none"))


def voxels_without_headers(root: Path) -> Is:
    for i in range(N):
        path = root / ab(i) / f"JPCLN{i:03d}.IMG"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes([1, i]) * 200)
    refused = "class benign: 4 of 4 scans refused: is a file of bare voxels, .*put its .hdr"
    return Is(N, N, AB, init_refuses=refused)


def meta_image_in_two_files(root: Path) -> Is:
    for i in range(N):
        path = root / ab(i) / f"P{i}" / f"P{i}_t1.mhd"
        path.parent.mkdir(parents=True)
        path.write_text(f"ObjectType = Image {i}")
        path.with_suffix(".raw").write_bytes(bytes(9))
    return Is(N, N, AB, init_refuses="class benign: 4 of 4 scans refused: is MetaImage")


def files_in_class_folders(name: str, said: str) -> Build:
    """One file a scan, of a format that nothing here reads."""

    def build(root: Path) -> Is:
        for i in range(N):
            path = root / ab(i) / name.format(f"x{i}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"\0\1\2\3" + bytes([i]) * 40)
        return Is(N, N, AB, init_refuses=rf"class benign: 4 of 4 scans refused: is {said}")

    return build


def volumes_in_folders_of_people(ending: str, said: str) -> Build:
    def build(root: Path) -> Is:
        for i in range(N):
            path = root / ab(i) / f"P{i}" / f"P{i}_t1{ending}"
            path.parent.mkdir(parents=True)
            path.write_bytes(b"\0\1\2\3" + bytes([i]) * 40)
        return Is(N, N, AB, init_refuses=rf"class benign: 4 of 4 scans refused: is {said}")

    return build


def one_class_in_another_format(root: Path) -> Is:
    """A class of whose scans most are videos would be what is left of it."""
    for i in range(20):
        picture(root / "benign" / f"b{i}.png")
        if i < 6:
            picture(root / "malignant" / f"m{i}.png")
        (root / "malignant").mkdir(exist_ok=True)
        (root / f"malignant/v{i}.mp4").write_bytes(bytes([i]) * 9)
    return Is(46, 46, AB, init_refuses="class malignant: 20 of 26 scans refused: is a video")


def beside_scans(root: Path) -> Is:
    """What lies beside a study's scans: each is told by its kind."""
    for i in range(16):
        picture(root / "images" / f"x{i}.png")
    table(root / "labels.csv", "image,diagnosis", ([f"x{i}.png", ab(i)] for i in range(16)))
    for name in (
        *("all.zip", "paper.pdf", "model.pt", "clip.mp4", "slide.svs", "x.npy", "old.csv.gz"),
        *("m.tar.gz", "collection.tcia", "voxels.raw", "stack.czi", "data.mat"),
    ):
        (root / "further").mkdir(exist_ok=True)
        (root / "further" / name).write_bytes(b"\0\1\2")
    return Is(
        16,
        16,
        AB,
        says=(
            r"left out: 2 files, an archive, which is not read here; unpack it",
            "left out: 3 files, a file of arrays, which",
            "left out: 1 files, a document",
            "left out: 1 files, a video",
            "left out: 1 files, a whole-slide image",
            "left out: 1 files, a microscope's own format",
            "left out: 1 files, a packed table",
            "left out: 1 files, a list of what to download",
            "left out: 1 files, a file of bare voxels",
        ),
    )


def packed_slices(root: Path, some: int = 7) -> Is:
    for i in range(N):
        folder = root / ab(i) / f"D{i}"
        write_series(folder, voxels(i, (8, 9, 7)))
        for path in sorted(folder.iterdir())[:some]:
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    if some < 7:
        return Is(refused=r"24 files are packed DICOM beside slices .*unpack them")
    return Is(56, 8, AB, init_refuses="28 of 28 scans refused: is packed DICOM, .*unpack it")


def some_slices_packed(root: Path) -> Is:
    return packed_slices(root, 3)


def nifti_in_capitals(root: Path) -> Is:
    for i in range(N):
        path = root / ab(i) / f"P{i}" / f"P{i}_T1.nii.gz"
        volume(path)
        path.rename(path.with_name(f"P{i}_T1.NII.GZ"))
    return Is(N, N, AB)


def arrays_alone(name: str, said: str) -> Build:
    """PatchCamelyon, MRNet: files of arrays, and nothing else."""

    def build(root: Path) -> Is:
        for part in ("train", "valid", "test"):
            (root / name.format(part)).parent.mkdir(parents=True, exist_ok=True)
            (root / name.format(part)).write_bytes(b"\x89HDF\r\n")
        return Is(refused=f"(no known layout|fewer than two classes).*{said}")

    return build


FOLDERS: dict[str, Build] = {
    f.__name__: f
    for f in (
        *(pairs_in_capitals, oasis_as_downloaded, voxels_without_headers, nifti_in_capitals),
        *(meta_image_in_two_files, one_class_in_another_format, beside_scans),
        *(packed_slices, some_slices_packed),
    )
} | {
    "pairs_of_analyze": pairs(analyze, UNKNOWN),
    "pairs_of_nifti": pairs(nifti_pair),
    "pcam": arrays_alone(
        "camelyonpatch_level_2_split_{}_x.h5.gz", "and 2 like it: a packed file of arrays"
    ),
    "mrnet": arrays_alone("{}/axial/0000.npy", "and 2 like it: a file of arrays"),
    "echonet": arrays_alone("Videos/{}.avi", "and 2 like it: a video, .*ffmpeg"),
    **{
        f"files_{name.partition('.')[2]}": files_in_class_folders(name, said)
        for name, said in (
            *(("{}.svs", "a whole-slide image"), ("{}.czi", "a microscope's own format")),
            *(("{}.mp4", "a video"), ("{}.avi", "a video"), ("{}.mat", "a file of arrays")),
            *(("{}.npy", "a file of arrays"), ("{}.h5", "a file of arrays")),
            *(("{}.dcm.gz", "packed DICOM"), ("{}.heic", "a camera's format")),
            *(("{}.LJPEG", "lossless JPEG"), ("{}.E2E", "an OCT device's own format")),
        )
    },
    **{
        f"volumes_{ending[1:]}": volumes_in_folders_of_people(ending, said)
        for ending, said in (
            *((".mnc", "MINC"), (".nhdr", "NRRD"), (".nii.bz2", "packed NIfTI, .*unpack it")),
            *((".HEAD", "AFNI"), (".PAR", "Philips"), (".mgh.gz", "FreeSurfer")),
        )
    },
}
