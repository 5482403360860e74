"""Planted copies between patients are found, placed in the split, and carried to the leaderboard."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, zoom

from medaug.audit import scan as scanning
from medaug.audit.leakage import Image, Leak, Leakage, leakage_of
from medaug.audit.scan import note_leakage, report_path, scan, scan_slices
from medaug.metrics import leakage
from medaug.results.leaderboard import leaderboard_of
from medaug.results.rows import LEAK
from medaug.results.table import explanation
from medaug.storage.artifacts import Artifacts
from medaug.store import Fold, Provenance, Splits, Store, StoreSchema, StoreWriter
from tests.tracking.made_runs import made_scores, study

PATIENTS, EACH, SIZE = 12, 4, 64
NAMES = [f"p-{number:012x}" for number in range(PATIENTS)]
SPLITS = Splits(
    (
        Fold(tuple(NAMES[:6]), tuple(NAMES[6:8]), tuple(NAMES[8:10])),
        Fold(tuple(NAMES[2:8]), tuple(NAMES[8:10]), tuple(NAMES[:2])),
    ),
    test=tuple(NAMES[10:]),
)


def cohort(seed: int = 0) -> np.ndarray:
    """(patients, slices, S, S) float32: blobs unlike each other."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((PATIENTS, EACH, SIZE, SIZE))
    return (1000 + 300 * gaussian_filter(noise, (0, 0, 2, 2))).astype(np.float32)


def write(
    path: Path, x: np.ndarray, splits: Splits = SPLITS, layout: str = "class_folders"
) -> Store:
    patient = np.repeat(NAMES, EACH)
    provenance = Provenance("slices", "0" * 12, (), (), synthetic=False)
    schema = StoreSchema((1, SIZE, SIZE), "float32")
    with StoreWriter(
        path,
        schema,
        provenance=provenance,
        classes=("LGG", "HGG"),
        splits=splits,
        extra={"data": {"layout": layout}},
    ) as writer:
        writer.write(
            x.reshape(-1, 1, SIZE, SIZE),
            label=np.repeat(np.arange(PATIENTS) % 2, EACH),
            patient=patient,
            volume=patient,
            slice_index=np.tile(np.arange(EACH), PATIENTS),
        )
    return Store.open(path)


def planted() -> np.ndarray:
    """One exact copy (patients 0 and 7), one near copy (1 and 2), one to the sealed set (3, 11);
    copies within a patient are no leak."""
    x = cohort()
    x[7, 2] = x[0, 1]
    larger = zoom(x[1, 3], 1.05, order=1)[:SIZE, :SIZE]
    x[2, 0] = 1.7 * larger + 90
    x[11, 3] = x[3, 3]
    x[5, 1] = x[5, 0]
    return x


def test_planted_copies_are_named_with_the_folds_they_leak_across(tmp_path: Path) -> None:
    found = scan(write(tmp_path / "slices", planted()))
    assert (found.rows, found.scanned, found.sealed) == (48, 48, 8)
    pairs = {(leak.a, leak.b): leak for leak in found.leaks}
    exact = pairs.pop((Image(NAMES[0], 1), Image(NAMES[7], 2)))
    near = pairs.pop((Image(NAMES[1], 3), Image(NAMES[2], 0)))
    sealed = pairs.pop((Image(NAMES[3], 3), Image(NAMES[11], 3)))
    assert not pairs
    assert (exact.kind, near.kind, sealed.kind) == ("exact", "near", "exact")
    assert near.similarity > 0.95
    assert exact.folds == (0, 1), "train and val, eval and train"
    assert near.folds == (1,), "both train in fold 0"
    assert sealed.folds == (0, 1)
    assert found.folds == (0, 1)
    assert found.summary() == (
        "leakage scan: 3 near-copies between different patients (48 images, 8 of them sealed),"
        " across splits in folds 0, 1"
    )


def test_where_nothing_is_planted_nothing_is_found(tmp_path: Path) -> None:
    found = scan(write(tmp_path / "slices", cohort()))
    assert found.leaks == found.folds == ()
    assert found.summary().startswith("leakage scan: no copies between different patients")


def test_of_volumes_some_inner_slices_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanning, "SLICES_OF_VOLUME", 2)
    x = cohort()
    x[9] = x[4]  # a whole volume under another name
    x[6, 0] = x[3, 0]  # outermost slices are all alike in real heads
    found = scan(write(tmp_path / "slices", x, layout="brats"))
    assert (found.rows, found.scanned) == (48, 24)
    assert [(leak.a, leak.b) for leak in found.leaks] == [
        (Image(NAMES[4], 1), Image(NAMES[9], 1)),
        (Image(NAMES[4], 3), Image(NAMES[9], 3)),
    ]


def test_pictures_that_are_made_when_needed_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = write(tmp_path / "slices", planted())
    kept = scan(store)
    monkeypatch.setattr(leakage, "KEPT_PIXELS", 0)
    assert scan(store) == kept
    assert kept.scanned == kept.rows


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_thirty_thousand_images() -> None:
    """All of 60 planted copies, exact and near, and nothing else."""
    n, side, rng = 30_000, 64, np.random.default_rng(0)
    noise = rng.standard_normal((n, side, side), dtype=np.float32)
    x = gaussian_filter(noise, (0, 2, 2))
    x = (x / x.std(axis=(1, 2), keepdims=True)).astype(np.float32)
    rows = rng.permutation(n)[:120].reshape(60, 2)
    for number, (a, b) in enumerate(rows):
        x[b] = x[a]
        if number >= 30:  # brighter, flatter, noisier
            x[b] = 0.7 * x[a] + 0.3 + 0.03 * rng.standard_normal((side, side))
    pairs = leakage.find_duplicates(x, [str(i) for i in range(n)])
    assert {frozenset((int(p.a), int(p.b))) for p in pairs} == set(map(frozenset, rows.tolist()))


def test_a_split_by_image_is_judged_by_image(tmp_path: Path) -> None:
    units = np.array([f"{name}/{i}" for name in NAMES for i in range(EACH)])
    fold = Fold(tuple(units[::2].tolist()), (), tuple(units[1::2].tolist()))
    x = cohort()
    x[7, 2], x[2, 0] = x[0, 1], x[1, 2]  # odd to even numbers; even to even
    found = scan(write(tmp_path / "slices", x, Splits((fold,), unit="image")))
    assert sorted(leak.folds for leak in found.leaks) == [(), (0,)]


def test_the_report_is_kept_beside_the_store_and_with_the_run(tmp_path: Path) -> None:
    artifacts, folder = Artifacts(tmp_path), tmp_path / "run"
    folder.mkdir()
    write(artifacts.store_path("slices-a"), planted())
    found = scan_slices(artifacts, "slices-a")
    path = report_path(artifacts, "slices-a")
    assert path == tmp_path / "stores" / "slices-a.leakage.json"
    assert json.loads(path.read_text())["leaks"][0]["a"] == {"patient": NAMES[0], "slice": 1}
    (artifacts.store_path("slices-a") / "manifest.json").unlink()
    assert scan_slices(artifacts, "slices-a") == found, "not scanned again"

    assert leakage_of(folder) is None
    note_leakage(folder, found)
    assert leakage_of(folder) == found
    path.write_text("torn {")
    write(artifacts.store_path("slices-b"), cohort())
    report_path(artifacts, "slices-b").write_text(json.dumps({"recipe": -1}))
    assert scan_slices(artifacts, "slices-b").leaks == (), "an older recipe's report is made again"


def test_copies_across_the_split_are_a_flag_of_every_row(tmp_path: Path) -> None:
    folder = made_scores(study(tmp_path))
    before = leaderboard_of(folder)
    leak = Leak(Image("p-a", 3), Image("p-b", 7), "near", 0.97, folds=())
    note_leakage(folder, Leakage("slices", 10, 10, 0, (leak,)))
    assert leaderboard_of(folder) == before, "both are in the same part of every fold"
    note_leakage(folder, Leakage("slices", 10, 10, 0, (replace(leak, folds=(0, 2)),)))
    board = leaderboard_of(folder)
    assert all(LEAK in row.flags for row in board.rows)
    assert [row.rank for row in board.rows] == [row.rank for row in before.rows]
    assert "copies among other patients" in explanation(board)
