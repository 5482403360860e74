"""Which scan a line of a table means, and what a table leaves unsaid."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

from tests.data.folders import AB, Build, Is, ab, mask, picture, table, volume
from tests.data.folders_of_classes import ham10000

N = 12


def alike_in_two_parts(name: str) -> Build:
    """The table is of train; test has files of the same names."""

    def build(root: Path) -> Is:
        for part in ("train", "test"):
            for i in range(N):
                picture(root / part / f"img{i}.png")
        table(root / "labels.csv", "id,label", ([name.format(i), ab(i)] for i in range(N)))
        return Is(
            refused=r"labels.csv:2: '.*' names 2 different pictures \(test/img0.png and train"
        )

    return build


def ham10000_unpacked_twice(root: Path) -> Is:
    """Equal pictures under one name are no question."""
    ham10000(root)
    for path in sorted(root.rglob("ISIC*.jpg")):
        copy = root / path.parent.name.lower() / path.name
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(path, copy)
    says = ("24 files are copies of another one of the same patient",)
    return Is(48, 12, ("bkl", "mel", "nv"), says=says)


def two_columns_of_numbers(root: Path) -> Is:
    """The counter of lines would name pictures as well, and other ones."""
    for i in range(N):
        picture(root / f"im/{i}.png")
    (root / "im/1.png").write_bytes((root / "im/0.png").read_bytes())  # by lines, of two classes
    order = [(i * 7 + 1) % N for i in range(N)]
    rows = ([i, k, AB[k // 6]] for i, k in enumerate(order))
    table(root / "labels.csv", "index,image_id,label", rows)
    return Is(N, N - 1, AB)


def two_columns_of_names(root: Path) -> Is:
    for i in range(N):
        picture(root / f"im/{i}.png")
    rows = ([i, (i * 7 + 1) % N, ab(i)] for i in range(N))
    table(root / "labels.csv", "image,scan,label", rows)
    return Is(refused="columns image and scan both name the scans, and not the same ones")


def without_a_header(root: Path) -> Is:
    for i in range(N):
        picture(root / f"im/{i:03d}.png")
    table(root / "labels.csv", "000.png,benign", ([f"{i:03d}.png", ab(i)] for i in range(1, N)))
    return Is(refused=r"labels.csv:1: the first line names a scan \(000.png\)")


def listed_with_another_ending(root: Path) -> Is:
    for i in range(N):
        picture(root / f"im/x{i}.png")
    table(root / "l.csv", "image,label", ([f"x{i}.dcm", ab(i)] for i in range(N)))
    return Is(N, N, AB)


def listed_in_capitals(root: Path) -> Is:
    for i in range(N):
        picture(root / f"im/img_{i}.png")
    table(root / "l.csv", "image,label", ([f"IMG_{i}.PNG", ab(i)] for i in range(N)))
    return Is(refused=r"l.csv:2: column image .*another spelling \('IMG_0.PNG' for 'img_0'\)")


def no_table_that_is_read(name: str, content: bytes, said: str) -> Build:
    def build(root: Path) -> Is:
        for i in range(N):
            picture(root / f"im/img_{i}.png")
        (root / name).write_bytes(content)
        return Is(refused=f"fewer than two classes.*{said}")

    return build


def classes_in_another_table_of_bids(root: Path) -> Is:
    rows, said = [], []
    for i in range(8):
        who = f"sub-{i:02d}"
        volume(root / f"{who}/anat/{who}_T1w.nii.gz")
        rows.append([who, 30 + i])
        said.append([who, ("HC", "MDD")[i % 2]])
    table(root / "participants.tsv", "participant_id,age", rows)
    table(root / "phenotype/dx.tsv", "participant_id,diagnosis", said)
    (root / "dataset_description.json").write_text("{}")
    says = ("classes are those of phenotype/dx.tsv, column diagnosis",)
    return Is(8, 8, ("HC", "MDD"), says=says)


def bids_without_participants(root: Path) -> Is:
    for i in range(8):
        volume(root / f"sub-{i:02d}/anat/sub-{i:02d}_T1w.nii.gz")
    (root / "dataset_description.json").write_text("{}")
    return Is(refused="participants.tsv: is missing, and nothing else says their classes")


def bids_of_other_zeros(root: Path) -> Is:
    for i in range(8):
        volume(root / f"sub-{i:03d}/anat/sub-{i:03d}_T1w.nii.gz")
    rows = ([f"sub-{i:02d}", ("HC", "MDD")[i % 2]] for i in range(8))
    table(root / "participants.tsv", "participant_id,group", rows)
    (root / "dataset_description.json").write_text("{}")
    return Is(refused=r"spelling \('sub-00' for 'sub-000'\).*--accept near_ids")


def linked_by_git_annex(root: Path) -> Is:
    for i in range(8):
        path = root / f"sub-{i:02d}/anat/sub-{i:02d}_T1w.nii.gz"
        path.parent.mkdir(parents=True)
        path.symlink_to(f"../../.git/annex/objects/{i}.nii.gz")
    table(
        root / "participants.tsv",
        "participant_id,group",
        ([f"sub-{i:02d}", ab(i)] for i in range(8)),
    )
    return Is(refused="8 files: a link of git-annex; fetch the file")


def pointers_of_git_lfs(root: Path) -> Is:
    for i in range(N):
        path = root / ab(i) / f"x{i}.png"
        path.parent.mkdir(exist_ok=True)
        text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{i:064x}\nsize 9\n"
        path.write_text(text)
    return Is(N, N, AB, init_refuses="class benign: 6 of 6 scans refused: a pointer of Git LFS")


def views_above_classes(root: Path) -> Is:
    for i in range(8):
        for view in ("axial", "sagittal"):
            picture(root / view / ab(i) / f"P{i:02d}.png")
    return Is(16, 8, AB)


def archives_in_class_folders(root: Path) -> Is:
    for i in range(N):
        (root / ab(i)).mkdir(exist_ok=True)
        np.savez(root / ab(i) / f"x{i}.npz", data=np.zeros((4, 4)))
    return Is(refused="no known layout.*x0.npz and 11 like it: unpack it")


def masks_of_several_frames(root: Path) -> Is:
    """ACDC: a mask is of its own frame."""
    rows = []
    for i in range(8):
        who = f"patient{i + 1:03d}"
        for frame in ("frame01", "frame12"):
            volume(root / f"training/{who}/{who}_{frame}.nii.gz")
            volume(root / f"training/{who}/{who}_{frame}_gt.nii.gz", labels=True)
        rows.append([who, ab(i)])
    table(root / "groups.csv", "patient,class", rows)
    says = ("left out: 8 files, a mask of another sequence than the study reads",)
    return Is(8, 8, AB, 8, says=says)


def numbers_of_examinations(root: Path) -> Is:
    """PI-CAI: the examination's number stands before the sequence."""
    rows = []
    for i in range(8):
        for what in ("t2w", "adc"):
            volume(root / f"images/{10000 + i}/{10000 + i}_{1000000 + i}_{what}.nii.gz")
        rows.append([10000 + i, 1000000 + i, ab(i)])
    table(root / "marksheet.csv", "patient_id,study_id,label", rows)
    return Is(8, 8, AB, says=("channels: t2w, adc; the study reads t2w",))


def kits(root: Path) -> Is:
    cases = []
    for i in range(8):
        volume(root / f"case_{i:05d}/imaging.nii.gz")
        volume(root / f"case_{i:05d}/segmentation.nii.gz", labels=True)
        cases.append([f"case_{i:05d}", ab(i)])
    (root / "kits.json").write_text(json.dumps(cases))
    table(root / "clinical.csv", "case_id,diagnosis", cases)
    return Is(8, 8, AB, 8)


def one_mask_folder_of_a_view(root: Path) -> Is:
    for i in range(N):
        picture(root / "a" / f"{i}.png")
        mask(root / "b" / f"{i}.png")
    table(root / "m.csv", "file,label", ([f"{i}.png", ab(i)] for i in range(N)))
    return Is(refused=r"m.csv:2: '0.png' names 2 different pictures \(a/0.png and b/0.png\)")


FOLDERS: dict[str, Build] = {
    f.__name__: f
    for f in (
        *(ham10000_unpacked_twice, two_columns_of_numbers, two_columns_of_names, without_a_header),
        *(listed_with_another_ending, listed_in_capitals, classes_in_another_table_of_bids),
        *(bids_without_participants, bids_of_other_zeros, linked_by_git_annex),
        *(pointers_of_git_lfs, views_above_classes, archives_in_class_folders, kits),
        *(masks_of_several_frames, numbers_of_examinations, one_mask_folder_of_a_view),
    )
} | {
    "alike_in_two_parts": alike_in_two_parts("img{}.png"),
    "alike_in_two_parts_by_stem": alike_in_two_parts("img{}"),
    "classes_in_json": no_table_that_is_read(
        "labels.json", b"{}", "labels.json: if it says classes"
    ),
    "classes_in_latin_1": no_table_that_is_read(
        "l.csv", b"image,label\nimg_0.png,Tum\xf6r\n", "l.csv:2: not UTF-8"
    ),
    "two_columns_without_names": no_table_that_is_read(
        "l.csv", b"image,label,,\nimg_0.png,benign,x,y\n", "l.csv:1: column '' appears twice"
    ),
}
