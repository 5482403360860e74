"""Volumes in folders of people and examinations, and tables that speak of these."""

from __future__ import annotations

from pathlib import Path

from tests.data.folders import Build, Is, table, volume

GRADES = ("LGG", "HGG")


def called_alike(*places: str, scans: int = 8, masks: int = 0, says: tuple[str, ...] = ()) -> Build:
    """Files of eight people that are called the same in every folder."""

    def build(root: Path) -> Is:
        for i in range(8):
            for place in places:
                path = root / GRADES[i % 2] / f"P{i:03d}" / place.format(i)
                volume(path, labels="seg" in place or "label" in place)
        return Is(scans, 8, GRADES, masks, says=says)

    return build


def sequences_in_folders_of_all(root: Path) -> Is:
    """T1/P001, FLAIR/P001."""
    for i in range(8):
        for what in ("T1", "FLAIR"):
            volume(root / GRADES[i % 2] / what / f"P{i:03d}.nii.gz")
    return Is(8, 8, GRADES, says=("channels: flair, t1; the study reads flair",))


def sequences_below_people_of_a_table(root: Path) -> Is:
    for i in range(8):
        for what in ("T1", "FLAIR"):
            volume(root / f"P{i:03d}" / what / "x.nii.gz")
    table(root / "c.csv", "id,diagnosis", ([f"P{i:03d}", GRADES[i % 2]] for i in range(8)))
    return Is(8, 8, GRADES, says=("channels: flair, t1; the study reads flair",))


def sequences_below_people_alone(root: Path) -> Is:
    for i in range(8):
        for what in ("T1", "FLAIR"):
            volume(root / f"P{i:03d}" / what / "x.nii.gz")
    return Is(refused="8 volumes, one folder per patient, and nothing says their classes")


def masks_in_folders_of_volumes(root: Path) -> Is:
    for i in range(8):
        volume(root / GRADES[i % 2] / "images" / f"P{i:03d}.nii.gz")
        volume(root / GRADES[i % 2] / "masks" / f"P{i:03d}.nii.gz", labels=True)
    return Is(8, 8, GRADES, 8)


def nnunet_without_its_list(root: Path) -> Is:
    for i in range(8):
        for number in (0, 1):
            volume(root / f"imagesTr/c{i}x_{number:04d}.nii.gz")
        volume(root / f"labelsTr/c{i}x.nii.gz", labels=True)
    table(root / "labels.csv", "case,class", ([f"c{i}x", GRADES[i % 2]] for i in range(8)))
    return Is(8, 8, GRADES, 8, says=("channels: 0000, 0001; the study reads 0000",))


def ucsf(width: int) -> Build:
    """A folder says more than its files (``_nifti``), and no column is called a class."""

    def build(root: Path) -> Is:
        rows = []
        for i in range(4, 12):
            who = f"UCSF-PDGM-{i:04d}"
            for what in ("FLAIR", "T1", "T1c", "T2", "ADC", "DTI_eddy_FA", "FLAIR_bias"):
                volume(root / f"{who}_nifti/{who}_{what}.nii.gz")
            for what in ("tumor_segmentation", "brain_segmentation"):
                volume(root / f"{who}_nifti/{who}_{what}.nii.gz", labels=True)
            rows.append([f"UCSF-PDGM-{i:0{width}d}", "M", 2 + i % 3, "Glioblastoma", i % 2])
        header = "ID,Sex,WHO CNS Grade,Final pathologic diagnosis (WHO 2021),MGMT index"
        table(root / "UCSF-PDGM-metadata_v2.csv", header, rows)
        if width == 4:
            return Is(refused=r"names the patients.*WHO CNS Grade, .*MGMT index.*--class COLUMN")
        return Is(refused=r"column ID .*spelling \('UCSF-PDGM-004' .*'UCSF-PDGM-0004'\)")

    return build


def oasis(column: str) -> Build:
    """Folders of processing below every person, and a table of clinical columns."""

    def build(root: Path) -> Is:
        rows = []
        for i in range(1, 13):
            who = f"OAS1_{i:04d}_MR1"
            for place in (
                *(f"RAW/{who}_mpr-1_anon", f"RAW/{who}_mpr-2_anon"),
                f"PROCESSED/MPRAGE/T88_111/{who}_mpr_n4_anon_111_t88_gfc",
            ):
                volume(root / who / f"{place}.nii.gz")
            rows.append([who, "M", 70 + i, 27, ("0", "0.5", "1")[i % 3]])
        table(root / "oasis_cross-sectional.csv", f"ID,M/F,Age,MMSE,{column}", rows)
        if column == "CDR":
            return Is(
                refused=r"names the patients.*\(columns: M/F, Age, MMSE, CDR\).*--class COLUMN"
            )
        return Is(12, 12, ("0", "0.5", "1"), says=("the study reads mpr-1_anon",))

    return build


def ids_of_another_kind(root: Path) -> Is:
    for i in range(12):
        volume(root / f"IXI{i + 2:03d}-{('HH', 'Guys')[i % 2]}-{1211 + i}-T1.nii.gz")
    table(root / "IXI.csv", "IXI_ID,SEX_ID,AGE", ([i + 2, 1 + i % 2, 30 + i] for i in range(12)))
    return Is(refused="IXI.csv has no column that names their files or folders")


FOLDERS: dict[str, Build] = {
    f.__name__: f
    for f in (
        *(sequences_in_folders_of_all, sequences_below_people_of_a_table, ids_of_another_kind),
        *(sequences_below_people_alone, masks_in_folders_of_volumes, nnunet_without_its_list),
    )
} | {
    "alike_in_anat": called_alike("anat/T1.nii.gz"),
    "alike_in_sessions": called_alike(
        *(f"ses-0{k}/{what}.nii.gz" for k in (1, 2) for what in ("T1", "seg")), scans=16, masks=16
    ),
    "alike_in_days": called_alike("2019-01-01/flair.nii.gz", "2020-05-05/flair.nii.gz", scans=16),
    "alike_in_scans": called_alike("scanA/flair.nii.gz", "scanB/flair.nii.gz", scans=16),
    "alike_brain": called_alike("brain.nii.gz"),
    "alike_image_and_label": called_alike("image.nii.gz", "label.nii.gz", masks=8),
    "alike_but_numbered": called_alike(
        *("T1/x{}.nii.gz", "FLAIR/x{}.nii.gz"), says=("channels: flair, t1",)
    ),
    "ucsf_pdgm": ucsf(4),
    "ucsf_pdgm_of_other_zeros": ucsf(3),
    "oasis": oasis("CDR"),
    "oasis_with_a_group": oasis("Group"),
}
