"""Forty strings that name a patient, a place or a person are planted in the inputs of a study; none
is in anything that the study leaves behind."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset

from medaug.data.privacy import KEY_ENV
from medaug.store import Store
from tests.data.dicom_series import voxels, write_series

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1000)]

STUDY = """\
name: tiny
data: {layout: dicom_series, image_size: 16, accept: {missing: true, lost: 0.5}}
split: {folds: 2}
arms: {none: {}, duplicate: {}, gaussian: {}}
classifier: {kind: linear, epochs: 1}
sweep: {n_synthetic: [8], seeds: [0]}
resources: {max_concurrent: 1}
"""

DICOM = {
    "PatientName": "Zyxq01^Doe",
    "PatientID": "Zyxq02",
    "PatientBirthDate": "19020307",
    "PatientAddress": "Zyxq04 Street 4",
    "OtherPatientIDs": "Zyxq05",
    "InstitutionName": "Zyxq06 Hospital",
    "InstitutionAddress": "Zyxq07 Road",
    "ReferringPhysicianName": "Zyxq08^Ann",
    "OperatorsName": "Zyxq09",
    "StationName": "Zyxq10",
    "AccessionNumber": "Zyxq11",
    "StudyDescription": "Zyxq12",
    "SeriesDescription": "Zyxq13",
    "ProtocolName": "Zyxq14",
    "StudyID": "Zyxq15",
    "DeviceSerialNumber": "Zyxq16",
    "PatientComments": "Zyxq17 fell off a horse",
    "ImageComments": "Zyxq18",
    "StudyInstanceUID": "1.2.826.0.1.7700770.19",
}
"""Elements outside of the list that is read -> what is planted in them."""

OTHERS = {
    "a private element": "Zyxq20",
    "an item of a sequence": "Zyxq21",
    "the DICOM preamble": "Zyxq22",
    "the meta header": "Zyxq23",
    "an overlay": "Zyxq24",
    "the name of a slice": "Zyxq25",
    "the name of a file beside the slices": "Zyxq26",
    "a patient's folder": "Zyxq27-Doe",
    "a folder without a label": "Zyxq28",
    "the folder of scans": "Zyxq29-clinic",
    "the folder above": "Zyxq30-ward",
    "descrip": "Zyxq31",
    "aux_file": "Zyxq32",
    "intent_name": "Zyxq33",
    "db_name": "Zyxq34",
    "a NIfTI extension": "Zyxq35",
    "a column of the table": "Zyxq36",
    "a cell of the table": "Zyxq37",
    "the user": "zyxq38",
    "the host": "zyxq39",
    "the home folder": "Zyxq40",
    "a patient whose file is broken": "Zyxq41",
}
PLANTED = [*DICOM.values(), *OTHERS.values()]
TOKENS = re.compile(rb"zyxq\d\d|19020307|7700770", re.IGNORECASE)

RAW_NAMES = {"stores/rejects.jsonl", "tiny/study.json"}
"""What is said to hold them: the names of refused files, and where the scans lie, for resume."""


def spoil(dataset: Dataset, index: int) -> None:
    for keyword, text in DICOM.items():
        setattr(dataset, keyword, text)
    dataset.preamble = OTHERS["the DICOM preamble"].encode().ljust(128, b"\0")
    dataset.file_meta.SourceApplicationEntityTitle = OTHERS["the meta header"]
    dataset.private_block(0x0009, "SHOP", create=True).add_new(1, "LO", OTHERS["a private element"])
    item = Dataset()
    item.RequestedProcedureDescription = OTHERS["an item of a sequence"]
    dataset.RequestAttributesSequence = [item]
    dataset.add_new(0x60004000, "LT", OTHERS["an overlay"])


def plant(root: Path) -> None:
    """Eight patients, one of whom has all the secrets, one broken file and one without a label."""
    named, broken = OTHERS["a patient's folder"], OTHERS["a patient whose file is broken"]
    patients = [named, *(f"{OTHERS['a patient whose file is broken'][:-2]}5{n}" for n in range(7))]
    mask = np.zeros((8, 9, 4), np.uint8)
    mask[2:6, 2:6, 1:3] = 1
    for seed, patient in enumerate([*patients, broken, OTHERS["a folder without a label"]]):
        write_series(root / patient, voxels(seed), change=spoil)
        affine = np.diag([-0.5, -0.75, 2.0, 1.0])
        affine[:3, 3] = [-10, 20, 30]
        image = nib.Nifti1Image(mask, affine)
        for field in ("descrip", "aux_file", "intent_name", "db_name"):
            image.header[field] = OTHERS[field].encode()
        extension = nib.nifti1.Nifti1Extension(6, OTHERS["a NIfTI extension"].encode())
        image.header.extensions.append(extension)
        nib.save(image, root / patient / f"{patient}_seg.nii.gz")
    slice_ = next((root / named).glob("*.dcm"))
    slice_.rename(slice_.with_name(f"{OTHERS['the name of a slice']}.dcm"))
    (root / named / OTHERS["the name of a file beside the slices"]).write_text("notes")
    torn = next((root / broken).glob("*.dcm"))
    torn.write_bytes(torn.read_bytes()[:-40])
    column, cell = OTHERS["a column of the table"], OTHERS["a cell of the table"]
    rows = [f"{patient},{('LGG', 'HGG')[n % 2]},{cell}" for n, patient in enumerate(patients)]
    table = [f"subject_ID,Grade,{column}", *rows, f"{broken},HGG,{cell}"]
    (root / "name_mapping.csv").write_text("\n".join(table) + "\n")


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The storage of a finished study on such inputs, and what the command printed."""
    folder = tmp_path_factory.mktemp("privacy")
    root = folder / OTHERS["the folder above"] / OTHERS["the folder of scans"]
    plant(root)
    (folder / "tiny.yaml").write_text(STUDY)
    home = folder / OTHERS["the home folder"]
    home.mkdir()
    about = {"HOME": str(home), "HOSTNAME": OTHERS["the host"], KEY_ENV: str(folder / "site.key")}
    about |= dict.fromkeys(("USER", "LOGNAME", "USERNAME"), OTHERS["the user"])
    command = ["run", folder / "tiny.yaml", "--data", root, "--storage", folder / "runs"]
    done = subprocess.run(
        [sys.executable, "-m", "medaug", *map(str, command)],
        capture_output=True,
        text=True,
        env={**os.environ, "MLFLOW_TRACKING_URI": "", **about},
        cwd=home,
        timeout=900,  # the test must not depend on what else the machine does
    )
    assert done.returncode == 4, done.stdout + done.stderr  # two scans were left out
    return folder / "runs", done.stdout + done.stderr


def contents(storage: Path) -> Iterator[tuple[str, bytes]]:
    """Every file's name with its bytes; pictures inside of pages, and what pictures say, too."""
    for path in sorted(storage.rglob("*")):
        name = str(path.relative_to(storage))
        yield f"the name {name}", name.encode()
        if not path.is_file() or name in RAW_NAMES:
            continue
        content = path.read_bytes()
        yield name, content
        inside = re.findall(rb"base64,([A-Za-z0-9+/=]+)", content)
        pictures = [base64.b64decode(text) for text in inside]
        for picture in [*pictures, *([content] if path.suffix == ".png" else [])]:
            yield f"in {name}", picture
            if picture.startswith(b"\x89PNG"):
                yield f"said in {name}", repr(Image.open(io.BytesIO(picture)).info).encode()


def test_forty_strings_are_planted(tmp_path: Path) -> None:
    """Each is somewhere in the inputs, so that not to find it afterwards means something."""
    plant(tmp_path)
    haystack = b"".join(
        str(path.relative_to(tmp_path)).encode()
        + (path.read_bytes() if path.is_file() else b"")
        + (nib.load(path).header.extensions[0].get_content() if path.suffix == ".gz" else b"")
        + (bytes(nib.load(path).header.binaryblock) if path.suffix == ".gz" else b"")
        for path in tmp_path.rglob("*")
    )
    elsewhere = {
        "the folder of scans",
        "the folder above",
        "the user",
        "the host",
        "the home folder",
    }
    inside = [text for what, text in OTHERS.items() if what not in elsewhere] + [*DICOM.values()]
    assert [text for text in inside if text.encode() not in haystack] == []
    assert len(PLANTED) == len(set(PLANTED)) >= 40
    assert all(TOKENS.search(text.encode()) for text in PLANTED)


def test_none_of_them_gets_out(left: tuple[Path, str]) -> None:
    storage, printed = left
    outputs = dict(contents(storage)) | {"what was printed": printed.encode()}
    kinds = {Path(name).suffix for name in outputs}
    assert {".arrow", ".json", ".jsonl", ".db", ".html", ".png", ".safetensors"} <= kinds
    found = {name: TOKENS.findall(content) for name, content in outputs.items()}
    assert {name: hits for name, hits in found.items() if hits} == {}


def test_rows_are_known_by_pseudonyms(left: tuple[Path, str]) -> None:
    storage, printed = left
    (slices,) = (storage / "stores").glob("slices-*/")
    store = Store.open(slices)
    assert len(set(store.patients)) == 8
    assert all(re.fullmatch(r"p-[0-9a-f]{12}", patient) for patient in set(store.patients))
    assert "2 scans were left out" in printed


def test_only_two_files_hold_raw_names_and_they_say_so(left: tuple[Path, str]) -> None:
    storage, _ = left
    rejects = (storage / "stores" / "rejects.jsonl").read_text().splitlines()
    assert {json.loads(line)["patient"] for line in rejects} == {
        OTHERS["a patient whose file is broken"],
        OTHERS["a folder without a label"],
    }
    study = (storage / "tiny" / "study.json").read_bytes()
    allowed = (OTHERS["the folder above"], OTHERS["the folder of scans"])
    wanted = {TOKENS.search(text.encode())[0] for text in allowed}
    assert set(TOKENS.findall(study)) == wanted


def test_everything_is_its_owners_alone(left: tuple[Path, str]) -> None:
    storage, _ = left
    modes = {path: path.stat().st_mode & 0o777 for path in [storage, *storage.rglob("*")]}
    open_ = [path for path, mode in modes.items() if mode != (0o700 if path.is_dir() else 0o600)]
    assert open_ == []
