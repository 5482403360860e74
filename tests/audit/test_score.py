"""Another cohort: scored once by what the run has trained, and never if it is the study's own."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from scipy.ndimage import gaussian_filter
from sklearn.metrics import balanced_accuracy_score

from medaug.audit.cohorts import cohort_records
from medaug.cli import main
from medaug.data.privacy import KEY_ENV, pseudonym
from medaug.errors import UserError
from medaug.experiment.trained import load_classifier, rows_of
from medaug.intake import look_at_external, look_for_leaks, make_slices
from medaug.results.leaderboard import leaderboard_of
from medaug.results.records import read_trial
from medaug.results.report.document import write_report
from medaug.results.table import render as rendered
from medaug.score import RESEARCH_ONLY, predict, score
from medaug.spec import StudySpec, build_study
from medaug.spec.arms import ARM_CONFIGS
from medaug.storage.artifacts import Artifacts
from medaug.sweep.display import Silent
from medaug.train.world import World
from tests.audit.small_runs import run_trials

CPU = World.single()
SIDE, PATIENTS, OTHERS = 32, 24, 16
LABELS = ("benign", "malignant")
KINDS: dict[str, dict[str, Any]] = {
    "network": {"classifier": {"kind": "linear", "epochs": 3, "lr": 0.05}},
    "probe": {"classifier": {"kind": "probe"}},
    "pca": {"classifier": {"kind": "probe"}, "encoder": {"kind": "pixels_pca", "components": 4}},
}


def picture(path: Path, patient: str, label: int) -> None:
    """A texture of one's own; a malignant one is brighter, as a rule."""
    rng = np.random.default_rng(list(f"{patient}{path.stem}".encode()))
    texture = gaussian_filter(rng.standard_normal((SIDE, SIDE)), 0.7)
    glow = 110 + 24 * label + 12 * np.random.default_rng(list(patient.encode())).standard_normal()
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((glow + 30 * texture / texture.std()).clip(0, 255).astype(np.uint8)).save(path)


def cohort(root: Path, name: str, patients: int, *, first: str, part: str = "") -> list[list[str]]:
    """Two pictures of each patient, and their lines."""
    lines = []
    for number in range(patients):
        for k in range(2):
            file = root / f"{name}/{first}{number}-{k}.png"
            picture(file, f"{first}{number}", number % 2)
            line = [f"{name}/{file.name}", LABELS[number % 2], f"{first}{number}", part]
            lines.append(line)
    return lines


def write(path: Path, lines: list[list[str]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["file", "class", "patient", "part"], *lines])
    return path


def study_of(root: Path, kind: str) -> StudySpec:
    body = {
        "name": "small",
        "data": {"table": str(root / "in/scans.csv"), "classes": LABELS, "image_size": SIDE},
        "split": {"folds": 2},
        "arms": {"none": {}, "duplicate": {}, "gaussian": {"components": 3}},
        "sweep": {"n_synthetic": [24], "seeds": [0, 1, 2]},
        "controls": "none",
        "resources": {"keep_classifiers": True},
        "storage": str(root / "runs"),
    }
    return build_study(body | KINDS[kind], ARM_CONFIGS)


def finished(root: Path, kind: str) -> Path:
    own = cohort(root / "in", "own", PATIENTS, first="P")
    write(
        root / "in/scans.csv", own + cohort(root / "in", "far", OTHERS, first="F", part="external")
    )
    cohort(root / "other", "x", OTHERS, first="Doe")
    study = study_of(root, kind)
    slices, _ = make_slices(study, Silent())
    folder = run_trials(study, slices)
    look_for_leaks(study, slices, folder, Silent())
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("made")
        patch.setenv(KEY_ENV, str(root / "site.key"))
        return {kind: finished(root / kind, kind) for kind in KINDS}


@pytest.fixture(params=KINDS)
def run(
    request: pytest.FixtureRequest,
    made: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A run of its own for each test; the scans are shared."""
    folder = made[request.param]
    monkeypatch.setenv(KEY_ENV, str(folder.parents[2] / "site.key"))
    shutil.copytree(folder.parent, tmp_path / "runs")
    return tmp_path / "runs" / folder.name


def other_table(folder: Path, made: dict[str, Path], tmp_path: Path) -> Path:
    """The table of the other cohort, beside the run, its scans elsewhere."""
    kind = next(
        k
        for k, path in made.items()
        if (path / "study.json").read_text() == (folder / "study.json").read_text()
    )
    root = made[kind].parents[1] / "other"
    files = sorted(root.glob("x/*.png"))
    lines = []
    for file in files:
        patient = file.stem.split("-")[0]
        label = LABELS[int(patient.removeprefix("Doe")) % 2]
        lines.append([str(Path("..", "..", file).resolve().relative_to("/")), label, patient, ""])
    up = "../" * (len(tmp_path.resolve().parts) - 1)
    return write(tmp_path / "other.csv", [[up + f, *rest] for f, *rest in lines])


def test_the_external_part_is_scored_as_the_classifiers_say(run: Path) -> None:
    record = score(run, None, Silent())
    board = leaderboard_of(run)
    best = board.rows[0]
    row = record["rows"][0]
    assert (row["configuration"], row["roles"][0]) == (best.title, "best-ranked")
    assert record["patients"] == {"benign": OTHERS // 2, "malignant": OTHERS // 2}
    assert record["slices"] == 2 * OTHERS
    slices = Artifacts(run.parent).open_store(record["store"])
    assert {*slices.patients} == {pseudonym(f"F{i}") for i in range(OTHERS)}
    trials = [read_trial(run / "trials" / key) for key in best.trials]
    scores = []
    for seed in sorted({trial.config.seed for trial in trials}):
        own = [trial for trial in trials if trial.config.seed == seed]
        votes = []
        for trial in own:
            with rows_of(trial, CPU, slices) as rows:
                votes.append(load_classifier(trial, CPU).predict(rows, CPU)[:, 1].astype(float))
        mean, threshold = np.mean(votes, 0), np.mean([t.classified.threshold for t in own])
        names = np.unique(slices.patients)
        called = [mean[slices.patients == name].mean() >= threshold for name in names]
        true = [slices.labels[slices.patients == name][0] for name in names]
        scores.append(balanced_accuracy_score(true, called))
    found = row["scores"]["balanced_accuracy"]
    assert found["mean"] == pytest.approx(np.mean(scores))
    assert found["low"] <= found["mean"] <= found["high"]
    assert found["low"] < found["high"]
    titles = {each["configuration"] for each in record["rows"]}
    assert {best.title, best.reference, "none"} <= titles
    for each in record["rows"]:
        assert (each["gain"] is None) == (each["configuration"] == best.reference)


def test_a_cohort_is_scored_once_and_every_request_is_on_record(run: Path) -> None:
    arguments = ["score", "small", "--part", "external", "--storage", str(run.parent)]
    first = CliRunner().invoke(main, [*arguments, "--json"])
    assert first.exit_code == 0, first.output
    for features in (run.parent / "stores").glob("features-*"):
        shutil.rmtree(features)  # what the first request saw stands
    again = CliRunner().invoke(main, arguments)
    assert again.exit_code == 0, again.output
    assert "opened 2 times in all" in again.output
    assert cohort_records(run) == [json.loads(first.stdout)]
    board = leaderboard_of(run)
    assert board.to_json()["external"] == cohort_records(run)
    text, page = rendered(board, 120), write_report(run).read_text()
    for said in (text, page):
        assert f"External cohort external: {OTHERS // 2} benign" in said
        assert f"after {board.tried} configurations were tried" in " ".join(said.split())
    row = cohort_records(run)[0]["rows"][0]["scores"]["balanced_accuracy"]
    assert f"{row['mean']:.3f} [{row['low']:.3f}, {row['high']:.3f}]" in text


def test_another_table_is_another_cohort(run: Path, made: dict[str, Path], tmp_path: Path) -> None:
    table = other_table(run, made, tmp_path)
    record = score(run, table, Silent())
    assert (record["cohort"], record["known_ids"]) == ("other.csv", 0)
    assert sum(record["patients"].values()) == OTHERS
    score(run, None, Silent())
    assert {each["cohort"] for each in cohort_records(run)} == {"other.csv", "external"}
    files = [path for path in run.rglob("*") if path.is_file()]
    assert not [path for path in files if b"Doe" in path.read_bytes()]


def test_copies_of_the_studys_images_are_refused(
    run: Path, made: dict[str, Path], tmp_path: Path
) -> None:
    table = other_table(run, made, tmp_path)
    root = next(path for path in made.values()).parents[1]
    own = root / "in/own/P3-0.png"
    pixels = np.asarray(Image.open(own))
    Image.fromarray(pixels.astype(np.uint8) // 2 + 60).save(tmp_path / "copy.png")
    with table.open("a") as file:
        file.write("copy.png,benign,Somebody,\n")
    for call in (
        lambda: score(run, table, Silent()),
        lambda: predict(run, table, tmp_path / "out.csv", Silent()),
    ):
        with pytest.raises(UserError, match=r"1 images of 1 patients .*line 34\) are copies") as e:
            call()
        assert pseudonym("Somebody") in str(e.value)
        assert "Somebody" not in str(e.value)
    assert cohort_records(run) == []
    assert not (run / "external.log").exists()
    assert not (tmp_path / "out.csv").exists()


def test_a_study_with_copies_in_its_external_part_does_not_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_ENV, str(tmp_path / "site.key"))
    lines = cohort(tmp_path / "in", "own", PATIENTS, first="P")
    lines += cohort(tmp_path / "in", "far", 4, first="F", part="external")
    table = write(tmp_path / "in/scans.csv", lines)
    study = study_of(tmp_path, "network")
    folder = study.storage / study.name
    folder.mkdir(parents=True)
    slices, _ = make_slices(study, Silent())
    look_for_leaks(study, slices, folder, Silent())
    changed = study.resources.model_copy(update={"keep_classifiers": False})
    plain = study.model_copy(update={"resources": changed})
    assert look_at_external(plain, slices, folder, Silent()).resources.keep_classifiers
    shutil.copyfile(tmp_path / "in/own/P0-0.png", tmp_path / "in/again.png")
    pixels = np.asarray(Image.open(tmp_path / "in/again.png"))
    Image.fromarray(pixels + np.uint8(1)).save(tmp_path / "in/again.png")
    write(table, [*lines, ["again.png", "benign", "F9", "external"]])
    with pytest.raises(UserError, match=r"1 images of 1 patients .* are copies of images in"):
        look_at_external(study, slices, folder, Silent())


def test_predictions_say_what_the_classifiers_say(
    run: Path, made: dict[str, Path], tmp_path: Path
) -> None:
    table = other_table(run, made, tmp_path)
    lines = [line.split(",") for line in table.read_text().splitlines()]
    write_without_classes = "\n".join(",".join([a, c]) for a, _, c, _ in lines) + "\n"
    table.write_text(write_without_classes)
    out = tmp_path / "out.csv"
    command = ["predict", "small", "--data", str(table), "--out", str(out)]
    done = CliRunner().invoke(main, [*command, "--storage", str(run.parent)])
    assert done.exit_code == 0, done.output
    assert RESEARCH_ONLY in done.output
    first, *body = out.read_text().splitlines()
    assert first.startswith(f"# {RESEARCH_ONLY} ")
    assert "Doe" not in out.read_text()
    assert out.stat().st_mode & 0o777 == 0o600
    rows = list(csv.DictReader(body))
    scans = [row for row in rows if row["line"]]
    patients = [row for row in rows if not row["line"]]
    assert len(scans) == 2 * OTHERS
    assert len(patients) == OTHERS
    assert sorted(int(row["line"]) for row in scans) == list(range(2, 2 * OTHERS + 2))
    for row in scans:
        assert row["patient"] == pseudonym(lines[int(row["line"]) - 1][2])
    best = leaderboard_of(run).rows[0]
    slices = next(
        store
        for path in (run.parent / "stores").glob("slices-*/manifest.json")
        if {*(store := Artifacts(run.parent).open_store(path.parent.name)).patients}
        == {row["patient"] for row in patients}
        and store.schema.shape[-1] == SIDE
    )
    votes, thresholds = [], []
    for key in best.trials:
        trial = read_trial(run / "trials" / key)
        with rows_of(trial, CPU, slices) as own:
            votes.append(load_classifier(trial, CPU).predict(own, CPU).astype(float))
        thresholds.append(trial.classified.threshold)
    mean = np.mean(votes, 0)
    for row in patients:
        own_mean = mean[slices.patients == row["patient"]].mean(0)
        assert [float(row[f"p({name})"]) for name in LABELS] == pytest.approx(own_mean, abs=1e-5)
        assert row["called"] == LABELS[int(own_mean[1] >= np.mean(thresholds))]
    by_scan = np.mean([float(row["p(malignant)"]) for row in scans])
    assert by_scan == pytest.approx(mean[:, 1].mean(), abs=1e-5)
    again = CliRunner().invoke(main, [*command, "--storage", str(run.parent)])
    assert again.exit_code == 2
    assert "is there already" in again.stderr
    with pytest.raises(UserError, match="no finished 'nothing'; the run has"):
        predict(run, table, tmp_path / "o.csv", Silent(), configuration="nothing")


def test_networks_that_were_not_kept_are_trained_again_or_refused(
    made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made["network"]
    monkeypatch.setenv(KEY_ENV, str(folder.parents[2] / "site.key"))
    kept = score(_copy(folder, tmp_path / "a"), None, Silent())
    bare = _copy(folder, tmp_path / "b")
    for checkpoint in bare.glob("trials/*/ep_*"):
        shutil.rmtree(checkpoint)
    with pytest.raises(UserError, match="were not kept; --retrain"):
        score(bare, None, Silent())
    again = score(bare, None, Silent(), retrain=True)
    assert again["rows"] == kept["rows"]


def test_a_class_that_nobody_has_leaves_the_score_undefined(
    made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made["probe"]
    monkeypatch.setenv(KEY_ENV, str(folder.parents[2] / "site.key"))
    run = _copy(folder, tmp_path / "a")
    lines = [line for line in cohort(tmp_path, "x", 8, first="Q") if line[1] == LABELS[0]]
    record = score(run, write(tmp_path / "t.csv", lines), Silent())
    assert record["patients"] == {"benign": 4, "malignant": 0}
    assert record["rows"][0]["scores"]["balanced_accuracy"]["mean"] is None
    assert record["rows"][0]["scores"]["recall/benign"]["mean"] is not None
    text = rendered(leaderboard_of(run), 120)
    assert "no patient of class malignant: balanced accuracy is undefined" in text
    write_report(run)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --part external, or --data FILE"),
        (["--part", "external", "--data", "x.csv"], "give --part external, or --data FILE"),
        (["--data", "nowhere.csv"], "nowhere.csv is no table; give one like scans.csv"),
    ],
)
def test_what_is_asked_has_to_be_there(
    made: dict[str, Path], arguments: list[str], message: str
) -> None:
    storage = str(made["probe"].parent)
    done = CliRunner().invoke(main, ["score", "small", "--storage", storage, *arguments])
    assert done.exit_code == 2
    assert message in done.stderr


def _copy(folder: Path, to: Path) -> Path:
    shutil.copytree(folder.parent, to / "runs")
    return to / "runs" / folder.name
