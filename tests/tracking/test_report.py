"""The report: one file that says what the run shows, and gives nobody away."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from medaug.errors import UserError
from medaug.results.goodput import Spent, spent
from medaug.results.report import row_figures
from medaug.results.report.answer import answer
from medaug.results.report.checklist import checklist
from medaug.results.report.document import write_report
from medaug.results.report.evidence import Evidence
from medaug.results.report.facts import Table, without_paths
from medaug.spec import StudySpec
from medaug.storage.artifacts import Artifacts
from medaug.storage.trial_folder import TrialFolder
from medaug.store import Store
from tests.tracking.made_runs import made_run, made_scores, start, study
from tests.tracking.test_leaderboard import acgan_helps

ARMS: dict[str, dict[str, int]] = {"none": {}, "duplicate": {}, "classical": {}, "acgan": {}}
VOID = {"meta", "img", "br", "link", "hr", "input"}


class Page(HTMLParser):
    """Text, figures and attributes of a page; fails on tags that do not match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words += data.split()

    @property
    def text(self) -> str:
        return " ".join(self.words)

    @property
    def ids(self) -> list[str]:
        return [attributes["id"] or "" for _, attributes in self.tags if "id" in attributes]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run in which 300 rows of the ACGAN help; with its report."""
    small = study(tmp_path_factory.mktemp("storage"), split={"folds": 2}, arms=ARMS)
    folder = made_run(small, acgan_helps)
    write_report(folder)
    return folder


@pytest.fixture
def own_run(run: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    shutil.copytree(run.parent, tmp_path / "storage")
    return tmp_path / "storage" / run.name


def page_of(folder: Path) -> Page:
    return Page((folder / "report.html").read_text())


def test_one_file_that_needs_no_other(run: Path) -> None:
    page = page_of(run)
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object")
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:").startswith("data:")
    html = (run / "report.html").read_text()
    assert "url(" not in html
    assert "@import" not in html
    assert (run / "report.html").stat().st_mode & 0o777 == 0o600


def test_all_figures_are_there_with_words_for_who_cannot_see_them(run: Path) -> None:
    page = page_of(run)
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 8
    for image in images:
        assert len(image["alt"] or "") > 20
        assert int(image["width"] or 0) > 100
    drawn = {path.stem for path in (run / "figures").glob("*.png")}
    assert drawn == {
        *("leaderboard", "ratio", "confusion", "roc"),
        *("overlays", "unet_curves", "montage", "gan_curves"),
    }
    assert drawn <= set(page.ids)


def test_the_sections_come_in_the_order_of_reading(run: Path) -> None:
    sections = [a["id"] for tag, a in page_of(run).tags if tag == "section"]
    assert sections == [
        *("answer", "data", "generated", "results", "paper"),
        *("protocol", "time", "checklist", "settings"),
    ]


def test_one_replicate_of_each_configuration_and_fold_has_figures(run: Path) -> None:
    of_stage = Counter[tuple[str, str]]()
    for path in (run / "figures").glob("*/*.png"):
        config = json.loads((run / "trials" / path.parent.name / "config.json").read_text())
        of_stage[config["stage"], path.stem] += 1
        assert config["seed"] == 0
        assert path.stat().st_mode & 0o777 == 0o600
    assert of_stage == {
        ("segment", "curves"): 2,
        ("segment", "overlay"): 2,
        ("generate", "montage"): 4,  # two folds of classical and acgan, the first of three seeds
        ("generate", "curves"): 2,
        ("classify", "classifier"): 4,  # of the reference and of the best row
    }


def test_each_row_of_the_leaderboard_has_its_curves(run: Path) -> None:
    evidence = Evidence.of(run)
    with (run / "figures" / "rows" / "rows.csv").open(newline="") as file:
        index = list(csv.DictReader(file))
    assert [line["configuration"] for line in index] == [r.title for r in evidence.board.rows]
    assert {line["drawn"] for line in index} == {"yes"}
    for row in evidence.board.rows:
        folder = run / "figures" / "rows" / row.key
        assert {path.name for path in folder.iterdir()} == {
            *("classifier.png", "curves.csv", "confusion.csv"),
        }
        with (folder / "curves.csv").open(newline="") as file:
            points = list(csv.DictReader(file))
        assert Counter(line["curve"] for line in points) == {"roc": 101, "precision_recall": 101}
        roc = [float(line["mean"]) for line in points if line["curve"] == "roc"]
        assert (roc[0], roc[-1]) >= (0, 1)
        with (folder / "confusion.csv").open(newline="") as file:
            cells = {(c["true"], c["predicted"]): float(c["slices"]) for c in csv.DictReader(file)}
        of_class = cells["HGG", "HGG"] + cells["HGG", "LGG"]
        assert row.scores["slice_balanced_accuracy"] == pytest.approx(
            (cells["HGG", "HGG"] / of_class
             + cells["LGG", "LGG"] / (cells["LGG", "LGG"] + cells["LGG", "HGG"])) / 2
        )  # fmt: skip


def test_the_checklist_is_filled_from_the_records(run: Path, tmp_path: Path) -> None:
    items = checklist(Evidence.of(run))
    filled = [item for item in items if item.status == "filled"]
    assert len(filled) >= 20
    assert all(item.text for item in filled)
    numbers: list[int] = []
    for item in items:
        first, _, last = item.claim.partition("–")
        numbers += range(int(first), int(last or first) + 1) if first else []
    assert numbers == list(range(1, 45))  # every item of CLAIM 2024 once, in its order
    begun = study(tmp_path, split={"folds": 2}, arms=ARMS)
    folder, _ = start(begun)
    before = {item.topic: item.status for item in checklist(Evidence.of(folder))}
    assert before["Performance and uncertainty"] == "to be written"
    assert sum(status == "filled" for status in before.values()) < len(filled)


def test_a_long_leaderboard_says_which_rows_are_drawn(
    own_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(own_run / "figures" / "rows")
    monkeypatch.setattr(row_figures, "MOST", 3)
    write_report(own_run)
    with (own_run / "figures" / "rows" / "rows.csv").open(newline="") as file:
        index = list(csv.DictReader(file))
    assert [line["drawn"] for line in index] == ["yes"] * 3 + ["no"] * (len(index) - 3)
    assert len(list((own_run / "figures" / "rows").glob("*/classifier.png"))) == 3
    assert f"the first 3 of {len(index)} rows" in page_of(own_run).text


def test_rows_that_are_no_pictures_are_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep of SMOTE on vectors has a thousand stores of generated rows to open for nothing."""
    arms: dict[str, dict[str, int]] = {"none": {}, "smote": {}, "gaussian": {}}
    small = study(tmp_path, split={"folds": 2}, arms=arms)
    opened, open_store = Counter[str](), Artifacts.open_store

    def counting(self: Artifacts, name: str) -> Store:
        opened[name.partition("-")[0]] += 1
        return open_store(self, name)

    monkeypatch.setattr(Artifacts, "open_store", counting)
    for width, made in (((24,), 0), ((24, 6, 6), 4)):
        folder = made_run(small, shape=width)
        opened.clear()
        write_report(folder)
        assert opened["features"] == 2  # of each fold, once
        assert opened["rows"] == made  # of twelve
        assert len(list((folder / "figures").glob("*/montage.png"))) == made
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()


def test_the_answer_says_what_was_shown(run: Path) -> None:
    evidence = Evidence.of(run)
    said = answer(evidence.board)
    assert said.headline == "A gain from synthetic data is shown on these patients."
    text = " ".join(said.sentences)
    best = evidence.board.rows[0]
    assert f"acgan +300, raises it to {best.mean:.3f}" in text
    assert f"+{best.gain:.3f}" in text
    assert "1 of 2 rankable configurations with synthetic data show a gain" in text
    assert "7 configurations were tried" in text
    assert said.headline in page_of(run).text


def test_the_answer_says_what_was_not_shown(tmp_path: Path) -> None:
    def said(folder: Path) -> tuple[str, str]:
        evidence = Evidence.of(folder)
        found = answer(evidence.board)
        return found.headline, " ".join(found.sentences)

    def small(name: str, **changes: object) -> StudySpec:
        return study(tmp_path / name, **({"split": {"folds": 2}, "arms": ARMS} | changes))

    headline, text = said(made_scores(small("null")))
    assert headline == "No gain from synthetic data is shown, nor ruled out."
    assert "would decide, in four of five such studies" in text
    assert "rankable configurations with synthetic data" in text

    def harm(labels: dict[str, object], seed: int) -> float:
        return 0.3 if labels["synthetic"] else 1.5

    headline, text = said(made_scores(small("harm"), harm))  # type: ignore[arg-type]
    assert headline == "Synthetic data bring no gain above +0.02 here."
    assert "makes the classifier worse" in text

    def hopeless(labels: dict[str, object], seed: int) -> float:
        return -0.6

    _, text = said(made_scores(small("chance"), hopeless))  # type: ignore[arg-type]
    assert "includes chance" in text

    few = small("few", sweep={"n_synthetic": [100], "seeds": [0]})
    headline, text = said(made_scores(few))
    assert headline == "Nothing here can be ranked."
    assert "1 seed, fewer than 3" in text

    controls = {"none": {}, "duplicate": {}, "classical": {}}
    headline, _ = said(made_scores(small("controls", arms=controls)))
    assert headline == "No arm with synthetic data was tried."


def test_the_data_are_described(run: Path) -> None:
    text = page_of(run).text
    assert "LGG 14 84 HGG 22 132 all 36 216" in text
    assert "Left out: 1 file, “is truncated; copy it again” (1)." in text
    assert "Φ(d′/2) = 0.903" in text
    assert "Lineage is proven for 42 of 42 finished classifiers" in text
    assert "No patient is in two parts of a fold." in text
    assert re.search(
        r"fold trains chooses epoch and threshold is scored 0 \d+ LGG \+ \d+ HGG", text
    )


def test_the_papers_table_stands_beside_ours(run: Path) -> None:
    text = page_of(run).text
    paper = text[text.index("Beside the paper (study A)") : text.index("The rules of")]
    assert "balanced accuracy 0.476" in paper
    assert "not better than chance" in paper
    assert "honest (made)" in paper
    assert "acgan +300 accuracy" in paper  # the nearest that we have to +1158
    assert "always answering HGG scores .635 accuracy" in paper


def test_the_other_protocol_stands_beside_them(own_run: Path) -> None:
    published = study(
        own_run.parent, name="as-in-paper", protocol="as_published", split={"scheme": "published"}
    )
    folder = made_scores(published)
    write_report(own_run)
    assert "published as_published (as-in-paper) honest (made)" in page_of(own_run).text
    write_report(folder)
    page = page_of(folder)
    assert "This run repeats a published protocol; it is no evidence." in page.text
    assert "the scored patients also choose epoch and threshold" in page.text
    assert "not rankable: protocol as_published" in page.text


def test_the_leaderboard_is_there_with_all_its_flags(run: Path) -> None:
    text = page_of(run).text
    board = Evidence.of(run).board
    for row in board.rows:
        assert f"{row.title} {' '.join(row.flags)}".strip() in text
    assert "C2ST accuracy" in text
    assert "60.0 (25.0)" in text  # a Fréchet distance never stands alone


def test_it_tells_no_place_and_no_raw_name(own_run: Path) -> None:
    secret = "Doe_Jane"
    body = json.loads((own_run / "study.json").read_text())
    body["data"]["root"] = f"scans/{secret}"
    body["storage"] = f"/mnt/{secret}/runs"
    body["tracking"]["uri"] = f"http://me:{secret}@mlflow:5000"
    body["segmenter"]["pretrain"] = {"weights": f"/home/{secret}.safetensors", "phantom": None}
    (own_run / "study.json").write_text(json.dumps(body))
    trial = next(iter(_trials(own_run, "generate")))
    (trial / "result.json").unlink()
    error = f"configuration: {own_run}/{secret}/scan.nii is torn; runs/x/{secret} too; copy it"
    (trial / "failure.json").write_text(json.dumps({"error": error, "traceback": secret}))
    write_report(own_run)
    html = (own_run / "report.html").read_text()
    for word in (secret, str(own_run.parent), "/work", "/tmp", "/home", "mlflow:5000"):
        assert word not in html
    assert "is torn" in html
    assert "copy it" in html


def test_an_unfinished_run_says_what_is_missing(own_run: Path) -> None:
    for trial in _trials(own_run, "classify"):
        shutil.rmtree(trial)
    for trial in list(_trials(own_run, "generate"))[:4]:
        (trial / "result.json").unlink()
    write_report(own_run)
    page = page_of(own_run)
    assert "No answer yet." in page.text
    assert "generate 8 4" in page.text
    assert "classify not begun" in page.text
    assert "No classifier has been scored yet." in page.text
    assert {"overlays", "unet_curves"} <= set(page.ids)
    assert not {"leaderboard", "roc"} & set(page.ids)


def test_a_run_that_has_just_begun_has_a_report(tmp_path: Path) -> None:
    folder, _ = start(study(tmp_path))
    write_report(folder)
    page = page_of(folder)
    assert "No answer yet." in page.text
    assert "nothing can be said about the patients" in page.text
    with pytest.raises(UserError, match="no such run"):
        write_report(tmp_path / "nothing")


def test_a_damaged_store_costs_its_figure_only(own_run: Path) -> None:
    made = sorted(_trials(own_run, "generate"))
    trial = next(each for each in made if (own_run / "figures" / each.name).exists())
    shutil.rmtree(own_run / "figures" / trial.name)
    name = json.loads((trial / "result.json").read_text())["output"]
    (shard,) = (own_run.parent / "stores" / name).glob("*.arrow")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    write_report(own_run)
    page = page_of(own_run)
    assert "Not drawn: montage of" in page.text
    assert str(own_run.parent) not in page.text
    assert not (own_run / "figures" / trial.name / "montage.png").exists()
    assert "leaderboard" in page.ids


def test_what_a_finished_trial_has_drawn_is_not_drawn_again(own_run: Path) -> None:
    figures = sorted((own_run / "figures").glob("*/*.png"))
    before = {path: path.stat().st_mtime_ns for path in figures}
    changed = figures[0].parent.name
    with (own_run / "trials" / changed / "epochs.jsonl").open("a") as file:
        row = {"epoch": 99, "metrics": {}, "seconds": 1.0, "save_seconds": 0.0, "time": 4e9}
        file.write(json.dumps(row) + "\n")
    write_report(own_run)
    again = {path.parent.name for path, then in before.items() if path.stat().st_mtime_ns != then}
    assert again == {changed}


def test_a_study_of_images_has_no_unet(tmp_path: Path) -> None:
    of_images = study(
        tmp_path,
        paper=None,
        segmenter=None,
        features=None,
        split={"folds": 2},
        arms={"none": {}, "duplicate": {}, "dcgan": {}},
        sweep={"n_synthetic": [100], "train_rows": [60, 120], "seeds": [0]},
    )
    folder = made_run(of_images)
    write_report(folder)
    page = page_of(folder)
    assert "images of 32 x 32 pixels" in page.text
    assert "paper" not in page.ids
    assert {"sizes", "montage", "leaderboard"} <= set(page.ids)
    assert not {"overlays", "unet_curves", "ratio"} & set(page.ids)

    for trial in list(_trials(folder, "classify")):  # as while the generators are being trained
        shutil.rmtree(trial)
    write_report(folder)
    assert "Who plays which part." in page_of(folder).text


def test_every_second_is_in_one_bucket() -> None:
    def epoch(number: int, time: float, seconds: float) -> dict[str, float]:
        return {"epoch": number, "seconds": seconds, "save_seconds": 1.0, "time": time}

    # Begun at 100; epoch 2 was lost in a crash and redone after 50 seconds.
    rows = [epoch(1, 111, 10), epoch(2, 122, 10), epoch(2, 193, 20), epoch(3, 204, 10)]
    found = spent(rows)
    assert found == Spent(trials=1, good=40, ckpt_save=4, redone=10, idle=50)
    assert found.wall == 204 - 100
    assert found.goodput == pytest.approx(40 / 104)


@pytest.mark.parametrize(
    ("text", "public"),
    [
        ("/data/Doe/x.nii: is torn; copy it", "(place): is torn; copy it"),
        ("at ~/runs, or ../x/y", "at (place), or (place)"),
        ("http://me:pw@host:5000/x fails", "(place) fails"),
        ("runs/demo/trials is full", "(place) is full"),
        ("train/loss and 1/2 stay", "train/loss and 1/2 stay"),
    ],
)
def test_places_are_left_out(text: str, public: str) -> None:
    assert without_paths(text) == public


def test_tables_are_rectangular(run: Path) -> None:
    from medaug.results.report import facts

    evidence = Evidence.of(run)
    assert evidence.slices is not None
    tables = [
        facts.cohort(evidence.slices),
        facts.splits(evidence.slices),
        facts.time_spent(evidence),
    ]
    for table in tables:
        assert isinstance(table, Table)
        assert {len(row) for row in table.rows} == {len(table.header)}


def _trials(folder: Path, stage: str) -> Iterator[Path]:
    for trial in (folder / "trials").iterdir():
        config = TrialFolder(trial.parents[1], trial.name).config()
        if config.stage == stage:
            yield trial
