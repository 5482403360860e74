"""Where scans lie: several sites, the publisher's parts, and folders around folders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.data.dicom_series import voxels, write_series
from tests.data.folders import AB, Build, Is, ab, listed, mask, picture, table, volume
from tests.data.folders_of_kinds import bids, medmnist, msd_task01, nnunet_v2

GRADES = ("LGG", "HGG")
SITES = ("siteA", "siteB")
TOLD = r"8 names of patients stand in several places \(in {} and {}, for one\).*--patients '\({}\|"


def told(first: str, second: str) -> str:
    return TOLD.format(first, second, first)


def volumes_of(*places: str) -> Build:
    """Equal names of patients at two places, below or above their class."""

    def build(root: Path) -> Is:
        for place in places:
            for i in range(8):
                folder = root / place.format(GRADES[i % 2]) / f"P{i:03d}"
                volume(folder / f"P{i:03d}_t1.nii.gz")
        first, second = sorted(p.replace("{}", "").strip("/") for p in places)
        return Is(16, 8, GRADES, says=(told(first, second),))

    return build


def pictures_of_sites(root: Path) -> Is:
    for site in SITES:
        for i in range(8):
            for k in range(2):
                picture(root / site / ab(i) / f"P{i:03d}" / f"{k}.png")
    return Is(32, 8, AB, says=(told(*SITES),))


def dicom_of_sites(root: Path) -> Is:
    for k, site in enumerate(SITES):
        for i in range(8):
            write_series(root / site / ab(i) / f"P{i:03d}", voxels(i + 10 * k))
    return Is(16, 8, AB, says=(told(*SITES),))


def sites_in(name: str, column: str) -> Build:
    """A table with a column of sites, whose patients are numbered at each."""

    def build(root: Path) -> Is:
        rows = []
        for site in SITES:
            for i in range(8):
                picture(root / f"x/{site}{i}.png")
                rows.append([f"x/{site}{i}.png", ab(i), f"P{i:03d}", site])
        table(root / name, f"file,class,patient,{column}", rows)
        says = r"8 patients are at several sites \(siteA and siteB, for one\)"
        return Is(16, 8, AB, says=(says,))

    return build


def sites_of_a_monai_list(root: Path) -> Is:
    entries = []
    for site in SITES:
        for i in range(8):
            volume(root / site / f"P{i:03d}.nii.gz")
            place = f"{site}/P{i:03d}.nii.gz"
            entries.append({"image": place, "label": i % 2, "patient": f"P{i:03d}", "site": site})
    (root / "datalist.json").write_text(json.dumps({"training": entries}))
    return Is(16, 8, ("0", "1"), says=(told(*SITES),))


def alike_in_two_classes(root: Path) -> Is:
    for i in range(8):
        for grade in GRADES:
            volume(root / grade / f"P{i:03d}" / f"P{i:03d}_t1.nii.gz")
    return Is(refused=r"is in HGG and in LGG; .* --patients '\(HGG\|LGG\)\.\*\?\(P\\d\+\)'")


def parts_of_volumes(root: Path) -> Is:
    """Each part numbers its own people, or the published split leaks."""
    for part in ("train", "test"):
        for i in range(8):
            volume(root / part / GRADES[i % 2] / f"P{i:03d}" / f"P{i:03d}_t1.nii.gz")
    kept = r"the publisher's parts \(8 train, 8 test\) are kept"
    return Is(16, 8, GRADES, says=(kept, "8 of 8 patients are in more than one of the publisher's"))


PARTS = ("train", "train", "val", "test")


def part_column(column: str, *words: str) -> Build:
    def build(root: Path) -> Is:
        rows = []
        for i in range(24):
            picture(root / f"images/{i:03d}.png")
            rows.append([f"{i:03d}.png", ab(i), words[i // 2 % 4]])
        table(root / "meta.csv", f"image,label,{column}", rows)
        return Is(24, 24, AB, says=(r"publisher's parts \(12 train, 6 val, 6 test\) are kept",))

    return build


def folds_of_the_publisher(root: Path) -> Is:
    rows = []
    for i in range(24):
        picture(root / f"images/{i:03d}.png")
        rows.append([f"{i:03d}.png", ab(i), i // 2 % 5])
    table(root / "meta.csv", "image,label,fold", rows)
    return Is(24, 24, AB, says=(r"column fold \(5 values\) says the publisher's folds",))


def parts_in_scans_csv(root: Path) -> Is:
    listed(root, {"class": ab, "Split": lambda i: ("Train", "valid", "TEST")[i // 2 % 3]}, 24)
    return Is(24, 24, AB, says=(r"publisher's parts \(8 train, 8 val, 8 test\) are kept",))


def a_group_that_is_a_part(root: Path) -> Is:
    listed(root, {"class": ab, "group": lambda i: ("train", "test")[i // 2 % 2]}, 24)
    return Is(24, 24, AB, says=(r"publisher's parts \(12 train, 12 test\) are kept",))


def a_table_for_each_part(root: Path) -> Is:
    for part, n in (("train", 16), ("test", 8)):
        for i in range(n):
            picture(root / f"images/{part[:2]}{i}x.png")
        rows = [[f"{part[:2]}{i}x.png", ab(i)] for i in range(n)]
        table(root / f"{part}.csv", "image,label", rows)
    return Is(24, 24, AB, says=(r"publisher's parts \(16 train, 8 test\) are kept",))


def sections_of_a_monai_list(root: Path) -> Is:
    body: dict[str, list[object]] = {"numTest": 2}  # type: ignore[dict-item]
    for section, n in (("training", 12), ("validation", 4), ("testing", 4), ("calibration", 2)):
        body[section] = []
        for i in range(n):
            volume(root / f"{section}/{section}{i}x.nii.gz")
            body[section].append({"image": f"{section}/{section}{i}x.nii.gz", "label": i % 2})
    for name in ("here", "elsewhere"):
        body.setdefault("test", []).append(f"held/{name}.nii.gz")
    volume(root / "held/here.nii.gz")
    (root / "datalist.json").write_text(json.dumps(body))
    says = (
        r"publisher's parts \(12 train, 4 val, 4 test\) are kept",
        r"section calibration \(2 entries\) is none of training",
        "datalist.json: 1 scans under test are not here",
    )
    return Is(20, 20, ("0", "1"), pool=1, says=says)


def nnunet_with_test_labels(root: Path) -> Is:
    nnunet_v2(root)
    volume(root / "labelsTs/c9x.nii.gz", labels=True)
    with (root / "labels.csv").open("a") as file:
        file.write("c9x,HGG\n")
    return Is(9, 9, GRADES, 9, says=(r"publisher's parts \(1 test\) are kept",))


def wrapped(
    inner: Callable[[Path], Is], *folders: str, outer: bool = False, says: tuple[str, ...] = ()
) -> Build:
    """A folder of a known kind inside others; ``outer``: its labels lie in the outermost."""

    def build(root: Path) -> Is:
        place = root.joinpath(*folders)
        place.mkdir(parents=True)
        wanted = inner(place)
        if outer:
            shutil.move(place / "labels.csv", root / "labels.csv")
        system = root / "__MACOSX" / folders[0] / "._x"
        system.parent.mkdir(parents=True)
        system.write_bytes(b"x")
        return Is(
            *(wanted.scans, wanted.patients, wanted.classes, wanted.masks, wanted.pool),
            says=(f"taken for .*: {'/'.join(folders)}: ", *says),
        )

    return build


def two_sets_side_by_side(root: Path) -> Is:
    for name in ("Task01_BrainTumour", "Task02_Heart"):
        msd_task01(root / name)
    return Is(refused=r"holds 2 folders of the kind nnunet \(Task01_BrainTumour, Task02_Heart\)")


def own_table_in_a_folder(root: Path) -> Is:
    listed(root / "archive", {"class": ab, "patient": lambda i: f"p{i // 2}"})
    return Is(12, 6, AB)


def two_words_for_the_class(root: Path) -> Is:
    """The further column would be read as the class, too, were its name kept."""
    rows = []
    for i in range(12):
        picture(root / f"images/i{i}.png")
        rows.append([f"i{i}.png", ab(i), i % 2, i, "chest"])
    table(root / "m.csv", "image,diagnosis,label,slice,scan", rows)
    return Is(12, 12, AB)


def masks_in_a_column(root: Path) -> Is:
    rows = []
    for i in range(12):
        picture(root / f"a/i{i}.png")
        mask(root / f"b/out{i}.png")
        rows.append([f"b/out{i}.png", f"a/i{i}.png", ab(i)])
    table(root / "m.csv", "mask,image,diagnosis", rows)
    return Is(12, 12, AB, masks=12)


FOLDERS: dict[str, Build] = {
    f.__name__: f
    for f in (
        *(pictures_of_sites, dicom_of_sites, sites_of_a_monai_list, alike_in_two_classes),
        *(parts_of_volumes, folds_of_the_publisher, parts_in_scans_csv, a_group_that_is_a_part),
        *(a_table_for_each_part, sections_of_a_monai_list, nnunet_with_test_labels),
        *(two_sets_side_by_side, own_table_in_a_folder, two_words_for_the_class),
        *(masks_in_a_column,),
    )
} | {
    "volumes_of_sites": volumes_of("siteA/{}", "siteB/{}"),
    "volumes_of_sites_below": volumes_of("{}/siteA", "{}/siteB"),
    "volumes_of_towns": volumes_of("{}/Utrecht", "{}/Amsterdam"),
    "volumes_of_towns_above": volumes_of("Utrecht/{}", "Amsterdam/{}"),
    "sites_in_scans_csv": sites_in("scans.csv", "site"),
    "sites_in_a_table": sites_in("meta.csv", "Centre"),
    "part_column_split": part_column("split", *PARTS),
    "part_column_set": part_column("Set", "Training", "Training", "Validation", "Testing"),
    "part_column_partition": part_column("data_partition", "TRAIN", "TRAIN", "dev", "hold-out"),
    "decathlon_in_folders": wrapped(msd_task01, "Task01", "Task01", outer=True),
    "decathlon_in_a_folder": wrapped(msd_task01, "archive", "Task01_BrainTumour"),
    "nnunet_in_folders": wrapped(nnunet_v2, "nnUNet_raw", "Dataset001_X", outer=True),
    "bids_in_folders": wrapped(bids, "ds000123", "ds000123-download"),
    "medmnist_in_a_folder": wrapped(medmnist, "archive"),
}
