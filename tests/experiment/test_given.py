"""Rows of other tools: from the files that they wrote to the leaderboard, with what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from medaug.audit.given import copied_features
from medaug.data.splits import make_splits
from medaug.errors import UserError
from medaug.experiment import run_trial
from medaug.given import bring_given
from medaug.plan.trials import plan_study
from medaug.results.leaderboard import leaderboard_of
from medaug.results.rows import UNKNOWN, UNRANKABLE
from medaug.spec import GenerateTrial, StudySpec
from medaug.storage.artifacts import Artifacts
from medaug.store import Provenance, Store, StoreSchema, StoreWriter
from medaug.sweep.display import Silent
from medaug.train.world import World
from tests.audit.small_runs import SIZE, SLICES, of_features, study, write_slices
from tests.experiment.in_process import InProcess

N = 24
CLASSES = ("LGG", "HGG")
GREY = [0.0, 300.0]


def pictures(n: int, seed: int = 7, side: int = SIZE) -> np.ndarray:
    """(n, S, S) float32 in [0, 300] with detail at every scale, as scans have; class 1, which every
    second one is of, is brighter."""
    random = np.random.default_rng(seed)
    x = np.zeros((n, side, side))
    size = 4
    while size <= side:
        coarse = random.standard_normal((n, size, size))
        x += coarse.repeat(side // size, axis=1).repeat(side // size, axis=2)
        size *= 2
    x += 0.5 * (np.arange(n) % 2)[:, None, None]
    return (150 + 40 * x).clip(0, 300).astype(np.float32)


def write_real(storage: Path, side: int = SIZE, images: bool = False, channels: int = 1) -> Store:
    """24 patients of two slices each, none like another's, with equal channels."""
    spec = study(storage)
    patients = [f"p-{number:012x}" for number in range(24)]
    labels = np.arange(24) % 2
    x = np.stack([pictures(24, seed, side) for seed in (1, 2)], axis=1)
    splits = make_splits(patients, labels.tolist(), spec.split)
    moments = {
        name: [float(own.size), float(own.sum(dtype=float)), float((own.astype(float) ** 2).sum())]
        for name, own in zip(patients, x, strict=True)
    }
    owner = np.repeat(patients, 2)
    with StoreWriter(
        Artifacts(storage).store_path(SLICES),
        StoreSchema((channels, side, side), "float32"),
        provenance=Provenance("slices", "0" * 12, (), (), synthetic=False),
        classes=CLASSES,
        splits=splits,
        extra={"moments": moments, "parts": {}, "images": images},
    ) as writer:
        index = np.tile([0, 1], 24)
        flat, label = x.reshape(-1, 1, side, side).repeat(channels, 1), labels.repeat(2)
        writer.write(flat, label=label, patient=owner, volume=owner, slice_index=index)
    return Artifacts(storage).open_store(SLICES)


def write_folder(path: Path, x: np.ndarray, labels: np.ndarray | None = None) -> Path:
    """8-bit images in class folders; 0 is black, 300 white."""
    labels = np.arange(len(x)) % 2 if labels is None else labels
    for number, (image, label) in enumerate(zip(x, labels, strict=True)):
        folder = path / CLASSES[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image / 300 * 255).round().astype(np.uint8)).save(folder / f"{number}.png")
    return path


def of_folder(storage: Path, path: Path, **keys: Any) -> StudySpec:
    arms = {"none": {}, "duplicate": {}, "classical": {}}
    own = {"kind": "folder", "path": str(path), "intensity": GREY, **keys}
    own = {key: value for key, value in own.items() if value is not None}
    return study(storage, arms={**arms, "theirs": own}, classifier={"kind": "probe"})


def brought(spec: StudySpec, display: Silent | None = None) -> dict[Any, str]:
    folder = spec.storage / spec.name
    folder.mkdir(parents=True, exist_ok=True)
    sweep = InProcess(spec.storage)
    display = display or Silent()
    given, _ = bring_given(spec, SLICES, folder, display, sweep)  # type: ignore[arg-type]
    return dict(given)


def run_given(spec: StudySpec) -> Path:
    """The folder of the run with every trial but those of the linear models beside it."""
    folder = spec.storage / spec.name
    for _, trials in plan_study(spec, SLICES, given=brought(spec)).waves():
        for config in trials:
            if getattr(config, "linear", False) or getattr(config, "encoder", None):
                continue
            place = folder / "trials" / config.key
            place.mkdir(parents=True, exist_ok=True)
            *_, last = run_trial(config, World.single(), spec.storage)
            assert last.result is not None
            (place / "config.json").write_text(config.model_dump_json())
            (place / "result.json").write_text(last.result.model_dump_json())
    (folder / "study.json").write_text(json.dumps(spec.canonical()))
    return folder


def rows_made(spec: StudySpec) -> list[Store]:
    artifacts = Artifacts(spec.storage)
    plan = plan_study(spec, SLICES, given=brought(spec))
    made = []
    for trial in (t for t in plan.generate if t.arm == "theirs"):
        *_, last = run_trial(trial, World.single(), spec.storage)
        made.append(artifacts.open_store(last.result.output))  # type: ignore[union-attr]
    return made


@pytest.fixture
def real(tmp_path: Path) -> Store:
    return write_real(tmp_path)


def test_a_folder_of_unknown_lineage_is_judged_and_never_a_gain(
    tmp_path: Path, real: Store
) -> None:
    theirs = write_folder(tmp_path / "theirs", pictures(2 * N))
    spec = of_folder(tmp_path, theirs)
    board = leaderboard_of(run_given(spec))
    (row,) = [row for row in board.rows if row.kind == "folder"]
    assert row.replicates == row.expected == 6
    assert UNKNOWN in row.flags
    assert not [flag for flag in row.flags if flag.startswith(UNRANKABLE)]
    assert row.rank is not None
    assert row.ending != "gain"
    assert 0 < row.quality["tstr"] <= 1


@pytest.mark.parametrize(
    ("made_from", "lineage"),
    [({"public": "a set"}, "declared"), ("study_train", "declared"), ("unknown", "unknown")],
)
def test_lineage_is_what_is_declared(
    tmp_path: Path, real: Store, made_from: Any, lineage: str
) -> None:
    for fold in (0, 1):
        write_folder(tmp_path / "theirs" / f"fold{fold}", pictures(N, seed=10 + fold))
    spec = of_folder(tmp_path, tmp_path / "theirs", made_from=made_from)
    plan = plan_study(spec, SLICES, given=brought(spec))
    sets = {(t.fold, t.given) for t in plan.generate if t.arm == "theirs"}
    assert len(sets) == 2
    assert len({given for _, given in sets}) == 2
    trials = [t for t in (*plan.generate, *plan.classify) if t.arm == "theirs" and t.seed == 0]
    seen = set()
    for trial in trials:
        *_, last = run_trial(trial, World.single(), tmp_path)
        if isinstance(trial, GenerateTrial):
            rows = Artifacts(tmp_path).open_store(last.result.output)  # type: ignore[union-attr]
            own = set(real.split("train", trial.fold).units.tolist())
            fitted_on = own if made_from == "study_train" else set()
            assert set(rows.provenance.fitted_on) == fitted_on
        else:
            seen.add(last.result.lineage)  # type: ignore[union-attr]
    assert seen == {lineage}


def test_images_come_in_as_the_slices_do(tmp_path: Path, real: Store) -> None:
    """Every row is an image of theirs of its class, on the study's scale; seeds change the order."""
    x = pictures(2 * N)
    spec = of_folder(tmp_path, write_folder(tmp_path / "theirs", x))
    first, *others = rows_made(spec)
    assert first.labels.tolist() == [i % 2 for i in range(N)]
    got = first.read().x[:, 0].numpy()
    for image, label in zip(got, first.labels, strict=True):
        distance = np.abs(x - image).max(axis=(1, 2))
        assert distance.min() <= 300 / 255 / 2 + 1e-3, "one step of 8 bits"
        assert distance.argmin() % 2 == label
    assert len(np.unique(got.reshape(N, -1), axis=0)) == N, "each once"
    assert any(not np.array_equal(got, other.read().x[:, 0].numpy()) for other in others)


def test_a_table_and_arrays_give_the_same_rows_as_the_folder(tmp_path: Path, real: Store) -> None:
    x = pictures(2 * N)
    grey = (x / 300 * 255).round().astype(np.uint8)
    labels = np.arange(2 * N) % 2
    folder = write_folder(tmp_path / "theirs", x)
    names = [f"theirs/{CLASSES[k]}/{i}.png,{CLASSES[k]}" for i, k in enumerate(labels)]
    (tmp_path / "theirs.csv").write_text("\n".join(["file,class", *names]) + "\n")
    values = grey.astype(np.float32) / np.float32(255) * np.float32(300)
    np.savez(tmp_path / "theirs.npz", x=values, label=labels)
    np.save(tmp_path / "rows.npy", values)
    np.save(tmp_path / "rows_labels.npy", labels)
    table = pa.table(
        {"x": pa.FixedShapeTensorArray.from_numpy_ndarray(values), "label": labels.astype(str)}
    )
    words = table.set_column(1, "class", pa.array([CLASSES[k] for k in labels]))
    with pa.ipc.new_file(str(tmp_path / "theirs.arrow"), words.schema) as writer:
        writer.write_table(words)
    found = {}
    for name in ("theirs", "theirs.csv", "theirs.npz", "rows.npy", "theirs.arrow"):
        files = name in ("theirs", "theirs.csv")
        spec = of_folder(tmp_path, tmp_path / name, intensity=GREY if files else None)
        rows = rows_made(spec)[0].read().x.numpy().reshape(N, -1)
        found[name] = rows[np.lexsort(rows.T[::-1])]
    sets = {name: {row.tobytes() for row in rows.round(3)} for name, rows in found.items()}
    own = {row.tobytes() for row in values.reshape(2 * N, -1).round(3)}
    assert all(one <= own for one in sets.values()), {n: len(s - own) for n, s in sets.items()}
    assert folder.is_dir()


@pytest.mark.parametrize("near", [False, True])
def test_copies_of_scored_patients_refuse_the_arm(tmp_path: Path, near: bool) -> None:
    """Slices at 128 pixels: a copied slice among new ones is found, re-encoded and shifted, too."""
    spec, slices = large_study(tmp_path)
    held = slices.split("eval", 0).read([0]).x[0, 0].numpy()
    theirs = pictures(2 * N, 99, 128)
    theirs[1] = np.roll(held, 2, axis=1) * 0.9 if near else held
    write_folder(tmp_path / "theirs" / "fold0", theirs)
    write_folder(tmp_path / "theirs" / "fold1", pictures(2 * N, 98, 128))
    with pytest.raises(UserError, match=r"arms\.theirs\.path: 1 of 48 images are copies of pat"):
        brought(spec)


def test_copies_of_training_patients_alone_refuse_nothing(tmp_path: Path) -> None:
    spec, slices = large_study(tmp_path)
    for fold in (0, 1):
        theirs = pictures(2 * N, 99 + fold, 128)
        theirs[1] = slices.split("train", fold).read([0]).x[0, 0].numpy()
        write_folder(tmp_path / "theirs" / f"fold{fold}", theirs)
    assert len(set(brought(spec).values())) == 2
    audit = json.loads((tmp_path / "small" / "given.json").read_text())
    assert {about["images"] for about in audit.values()} == {2 * N}


@pytest.mark.parametrize("white", [1.0, 300.0])
def test_images_of_another_scale_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, white: float
) -> None:
    spec, _ = large_study(tmp_path)
    scale = None if white == 1 else (0.0, white)
    arm = spec.arms["theirs"].model_copy(update={"intensity": scale})
    spec = spec.model_copy(update={"arms": {**spec.arms, "theirs": arm}})
    write_folder(tmp_path / "theirs", pictures(2 * N, 99, 128))
    display, notes = Silent(), list[str]()
    monkeypatch.setattr(display, "note", notes.append)
    brought(spec, display)
    told = [note for note in notes if "times as bright" in note]
    assert len(told) == (white == 1)
    assert all("give arms.theirs.intensity: [black, white]" in note for note in told)


def large_study(storage: Path) -> tuple[StudySpec, Store]:
    spec = of_folder(storage, storage / "theirs")
    spec = spec.model_copy(update={"data": spec.data.model_copy(update={"image_size": 128})})
    return spec, write_real(storage, 128, images=True)


def test_features_that_copy_scored_rows_are_found() -> None:
    random = np.random.default_rng(3)
    real, train, new = (random.standard_normal((n, 8)) for n in (40, 60, 50))
    owners = np.array([f"p{i // 4}" for i in range(40)])
    assert copied_features(new, real, owners, train)[0] == 0
    exact, low, usual = copied_features(np.concatenate([new, real[:3]]), real, owners, train)
    assert exact == 3
    near = real[random.integers(0, 40, 50)] + 0.02 * random.standard_normal((50, 8))
    exact, low, usual = copied_features(near, real, owners, train)
    assert exact == 0
    assert low > 2 * usual
    exact, low, usual = copied_features(new, real, owners, train)
    assert low <= 2 * usual


@pytest.mark.parametrize("labels", ["numbers", "names"])
def test_features_of_a_unet_come_as_an_array(tmp_path: Path, labels: str) -> None:
    told = np.arange(N) % 2
    names = np.array(CLASSES)[told] if labels == "names" else told
    spec = of_features(tmp_path, arms={"none": {}, "f": {"kind": "folder", "path": "x"}})
    write_slices(spec)
    plan = plan_study(spec, SLICES)
    for trial in (*plan.segment, *(t for t in plan.extract if t.unet is not None)):
        *_, last = run_trial(trial, World.single(), tmp_path)
    features = Artifacts(tmp_path).open_store(last.result.output)  # type: ignore[union-attr]
    shape = features.schema.shape
    x = np.random.default_rng(0).random((N, *shape)).astype(np.float32)
    np.savez(tmp_path / "f.npz", features=x.reshape(N, -1), labels=names)
    arm = {"kind": "folder", "path": str(tmp_path / "f.npz"), "made_from": {"public": "set"}}
    spec = of_features(tmp_path, arms={"none": {}, "f": arm})
    trial = plan_study(spec, SLICES, given=brought(spec)).generate[0]
    *_, last = run_trial(trial, World.single(), tmp_path)
    rows = Artifacts(tmp_path).open_store(last.result.output)  # type: ignore[union-attr]
    assert rows.schema.shape == shape
    own = {row.tobytes() for row in x.astype(np.float16)}
    assert {row.tobytes() for row in rows.read().x.numpy()} <= own

    eval_rows = Artifacts(tmp_path).open_store(trial.features).split("eval", trial.fold)
    copied = eval_rows.read(np.resize(np.arange(len(eval_rows)), N)).x.float().numpy()
    np.savez(tmp_path / "f.npz", features=copied, labels=names)
    trial = plan_study(spec, SLICES, given=brought(spec)).generate[0]
    with pytest.raises(UserError, match=r"arms\.f: of its 24 rows 24 are copies of patients"):
        list(run_trial(trial, World.single(), tmp_path))


def test_images_are_encoded_where_an_encoder_makes_the_features(
    tmp_path: Path, real: Store
) -> None:
    theirs = write_folder(tmp_path / "theirs", pictures(N))
    arm = {"kind": "folder", "path": str(theirs), "intensity": GREY}
    spec = study(
        tmp_path,
        encoder={"kind": "pixels_pca", "components": 5},
        arms={"none": {}, "theirs": arm},
        classifier={"kind": "probe"},
    )
    plan = plan_study(spec, SLICES, given=brought(spec))
    for trial in plan.extract:
        list(run_trial(trial, World.single(), tmp_path))
    trial = plan.generate[0]
    *_, last = run_trial(trial, World.single(), tmp_path)
    rows = Artifacts(tmp_path).open_store(last.result.output)  # type: ignore[union-attr]
    features = Artifacts(tmp_path).open_store(trial.features)
    assert rows.schema.shape == features.schema.shape
    by_class = [rows.read().x.numpy()[rows.labels == k].mean() for k in (0, 1)]
    own = [features.read().x.numpy()[features.labels == k].mean() for k in (0, 1)]
    assert np.sign(by_class[1] - by_class[0]) == np.sign(own[1] - own[0])


def test_bad_input_is_one_line(tmp_path: Path, real: Store) -> None:
    theirs = tmp_path / "theirs"

    def refused(says: str, path: Path = theirs, **keys: Any) -> None:
        with pytest.raises(UserError, match=says) as error:
            brought(of_folder(tmp_path, path, **keys))
        assert "\n" not in str(error.value)

    refused(r"arms\.theirs\.path: .*theirs is not there; make the rows of fold 0 first")
    write_folder(theirs, pictures(4))
    refused(r"arms\.theirs\.path: 2 rows of class LGG, and sweep\.n_synthetic = 24 takes 12")
    write_folder(theirs, pictures(2 * N))
    refused(
        r"arms\.theirs\.made_from: study_train wants rows of each fold", made_from="study_train"
    )
    refused(r"arms\.theirs\.intensity: the study's scans are volumes", intensity=None)
    (theirs / "HGC").mkdir()
    refused(r"arms\.theirs\.path: folder 'HGC' is no class of this study; did you mean 'HGG'")
    (theirs / "HGC").rmdir()
    for image in (theirs / "LGG").glob("*.png"):
        image.write_bytes(b"\x89PNG\r\n\x1a\n")
    refused(r"arms\.theirs\.path: data: class LGG: 24 of 24 scans refused: truncated PNG")
    (tmp_path / "a.txt").write_text("x")
    refused("is neither a folder, a .csv nor one of", tmp_path / "a.txt")

    def array(name: str, **arrays: Any) -> Path:
        np.savez(tmp_path / name, **arrays)
        return tmp_path / name

    x, y = pictures(2 * N), np.arange(2 * N) % 2
    refused(r"intensity: is about image files", array("i.npz", x=x, y=y))
    plain: dict[str, Any] = {"intensity": None}
    refused(r"a\.npz: has 0 of the arrays label", array("a.npz", x=x), **plain)
    refused(r"48 rows and labels of shape \(3,\)", array("b.npz", x=x, y=y[:3]), **plain)
    refused(r"has a label outside of 0 to 1", array("c.npz", x=x, y=y + 1), **plain)
    refused(r"has a class 'healthy'; write one of LGG, HGG",
            array("d.npz", x=x, y=np.array(["healthy"] * 48)), **plain)  # fmt: skip
    refused(r"no finite numbers", array("e.npz", x=x * np.nan, y=y), **plain)
    refused(r"Python objects", array("f.npz", x=np.array([{}] * 48), y=y), **plain)
    refused(r"rows are of shape \(7,\), the study's of \(1, 32, 32\)",
            array("g.npz", x=np.ones((48, 7)), y=y), **plain)  # fmt: skip
    refused(r"has no row of class HGG", array("h.npz", x=x, y=y * 0), **plain)
    (tmp_path / "j.arrow").write_bytes(b"ARROW1 and then nothing of the kind")
    refused(r"j\.arrow: no Arrow file", tmp_path / "j.arrow", **plain)
    np.save(tmp_path / "k.npy", x)
    refused(r"arms\.theirs\.labels: .*k_labels\.npy is not there", tmp_path / "k.npy", **plain)


def test_keys_are_checked_with_the_study(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"arms\.theirs\.path: knows no \{patient\}; use \{fold\}"):
        of_folder(tmp_path, tmp_path / "{patient}")
    with pytest.raises(UserError, match=r"arms\.theirs\.made_from"):
        of_folder(tmp_path, tmp_path / "x", made_from="hearsay")
    with pytest.raises(UserError, match=r"arms\.theirs\.intensity: .*black first"):
        of_folder(tmp_path, tmp_path / "x", intensity=[3.0, 1.0])


def test_a_small_training_set_wants_a_generator_of_its_own(tmp_path: Path) -> None:
    """One that saw all training patients knows more than the 40 rows beside it."""

    def told(path: str, **keys: Any) -> set[Any]:
        spec = of_folder(tmp_path, tmp_path / path, made_from="study_train", **keys)
        sweep = spec.sweep.model_copy(update={"train_rows": (40,), "draws": 2})
        plan = plan_study(spec.model_copy(update={"sweep": sweep}), SLICES)
        return {(t.draw, t.maker.get("made_from")) for t in plan.generate if t.arm == "theirs"}

    assert told("fold{fold}") == {(0, "unknown"), (1, "unknown")}
    assert told("fold{fold}/n{train_rows}") == {(0, "study_train"), (1, "unknown")}
    own = told("fold{fold}/n{train_rows}/{draw}")
    assert own == {(0, "study_train"), (1, "study_train")}


def test_a_changed_folder_is_another_trial(tmp_path: Path, real: Store) -> None:
    theirs = write_folder(tmp_path / "theirs", pictures(N))
    spec = of_folder(tmp_path, theirs)

    def keys() -> set[str]:
        plan = plan_study(spec, SLICES, given=brought(spec))
        return {t.key for t in plan.generate if t.arm == "theirs"}

    before = keys()
    assert keys() == before
    theirs.rename(tmp_path / "moved")
    spec = of_folder(tmp_path, tmp_path / "moved")
    assert keys() == before, "where it lies decides nothing"
    write_folder(tmp_path / "moved", pictures(N, seed=8))
    assert not keys() & before
