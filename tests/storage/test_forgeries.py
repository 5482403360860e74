"""What whoever can write the storage, but has not the site's key, can put in the place of numbers.

Each forgery is a whole one: hashes and manifests agree, files are of the right kind. None may change
what a command prints without a word.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

import medaug
from medaug.data.privacy import KEY_ENV
from medaug.errors import IntegrityError
from medaug.ownership.seals import RunSeals
from medaug.results.records import TrialRecord, read_trial
from medaug.storage.artifacts import Artifacts
from medaug.storage.bundle_folder import BundleFolder, Member, bundle_key
from medaug.storage.journal import JOURNAL, read_journal
from medaug.storage.manifest import MANIFEST, read_sealed, sealed, write_manifest
from medaug.storage.trial_folder import TrialFolder
from medaug.store.manifest import MANIFEST as STORE_MANIFEST
from tests.audit.small_runs import SLICES
from tests.storage.sealed_runs import ask, sealed_run, site_key, small_study


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("forged")
    with site_key(root / "site.key"):
        return sealed_run(small_study(root / "runs"))


@pytest.fixture
def run(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy, on a machine with the key that made it, and with no note of this place."""
    key = tmp_path / "site.key"
    shutil.copy2(made.parents[1] / "site.key", key)
    monkeypatch.setenv(KEY_ENV, str(key))
    shutil.copytree(made.parent, tmp_path / "runs")
    return tmp_path / "runs" / made.name


def classifiers(run: Path) -> list[TrialRecord]:
    """With what each came to, in the order of their keys."""
    records = [read_trial(path.parent) for path in sorted(run.glob("trials/*/result.json"))]
    return [record for record in records if record.config.stage == "classify"]


def as_another_trial(run: Path) -> Path:
    """A trial's folder a second time, under a key that nobody planned."""
    copy = run / "trials" / "0123456789ab"
    shutil.copytree(classifiers(run)[0].folder, copy)
    return copy


def a_further_replicate(run: Path) -> Path:
    """A trial that would count, of a seed that the study has not."""
    record = classifiers(run)[0]
    config = record.config.model_copy(update={"seed": 99})
    folder = TrialFolder(run, config.key)
    folder.claim(config)
    folder.finish(record.classified)
    return folder.path


def in_a_bundle(run: Path) -> Path:
    """A result beside the sealed one, where trials of bundles are."""
    record = classifiers(run)[0]
    bundle = BundleFolder(run, bundle_key([record.config]))
    bundle.claim_all([record.config])
    forged = record.classified.model_copy(update={"threshold": 0.0})
    bundle.commit([Member(record.config.key, forged, 1.0, 1e9)])
    return bundle.path


def as_another_configuration(run: Path) -> Path:
    """A sealed trial's key, told to be of other settings: as trials of version 0.1 are."""
    record, *others = classifiers(run)
    other = next(each for each in others if each.classify.arm != record.classify.arm)
    config = other.config.model_copy(update={"recorded_key": record.config.key})
    bundle = BundleFolder(run, "0123456789ab")
    bundle.claim_all([config])
    return bundle.path


def an_unsealed_record(run: Path) -> Path:
    path = run / "unsealed.json"
    path.write_text(json.dumps({"run": run.name, "rows": [], "who": "x", "when": "x"}))
    return path


def another_cohort(run: Path) -> Path:
    path = run / "external-0123456789ab.json"
    path.write_text(json.dumps({"run": run.name, "rows": [], "cohort": "x", "when": "x"}))
    return path


FORGERIES = [
    as_another_trial,
    a_further_replicate,
    in_a_bundle,
    as_another_configuration,
    an_unsealed_record,
    another_cohort,
]


@pytest.mark.parametrize("forge", FORGERIES)
def test_what_the_run_has_not_made_is_refused_by_its_name(
    run: Path, forge: Callable[[Path], Path]
) -> None:
    path = forge(run)
    for command in ("leaderboard", "report", "unseal", "resume", "verify"):
        said = ask(run, command)
        assert said.exit_code == 5, (command, said.output)
        assert str(path) in said.stderr
        assert "delete it" in said.stderr
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    said = ask(run, "leaderboard")
    assert (said.exit_code, said.stderr) == (0, ""), "the advice is right"


def test_a_trial_cannot_be_another_s(run: Path) -> None:
    """Whole folders swapped, between folds, seeds or arms."""
    first, second = (record.folder for record in classifiers(run)[:2])
    for a, b in ((first, run / "aside"), (second, first), (run / "aside", second)):
        a.rename(b)
    said = ask(run, "leaderboard")
    assert said.exit_code == 5
    assert "is not what this run has written" in said.stderr
    (run / JOURNAL).unlink()  # and where nothing is sealed, the key still tells
    (run / "version.json").write_text('{"medaug": "0.1.0", "then": []}')
    said = ask(run, "leaderboard")
    assert said.exit_code == 5
    assert f"{first / 'config.json'}: describes no trial" in said.stderr


def test_a_whole_run_cannot_be_another_s(run: Path) -> None:
    twin = run.with_name("final")
    shutil.copytree(run, twin)
    said = ask(twin, "leaderboard")
    assert said.exit_code == 5
    assert f"{twin / 'study.json'}: is of the run 'small', not of 'final'" in said.stderr


def test_a_model_that_the_run_has_not_made_scores_nothing(run: Path) -> None:
    """With a manifest of its own that agrees with it."""
    model = run.parent / "models" / next(iter(_made(run, "models"))).split("/")[1]
    (model / "config.json").write_text((model / "config.json").read_text() + " ")
    (model / MANIFEST).unlink()
    write_manifest(model)
    Artifacts(run.parent).verified_model(model.name)
    for command in ("unseal", "export", "verify"):
        said = ask(run, command)
        assert said.exit_code == 5, (command, said.output)
        assert "this run has made" in said.stderr
        assert model.name in said.stderr
    with pytest.raises(IntegrityError, match=model.name):
        medaug.load_generator(run.name, storage=run.parent)
    assert ask(run, "leaderboard").exit_code == 0, "which reads no model"


def test_covariates_are_those_that_the_run_has_read(run: Path) -> None:
    path = run.parent / "stores" / SLICES / STORE_MANIFEST
    body = read_sealed(path)
    body["extra"]["covariates"] = {"p-1": {"sex": "f"}}
    path.write_bytes(sealed(body))
    said = ask(run, "leaderboard")
    assert said.exit_code == 5
    assert f"{path}: is not what this run has made" in said.stderr


def _made(run: Path, kind: str) -> list[str]:
    record = read_journal(run)
    assert record is not None
    return [name for name in record.made if name.startswith(kind)]


@pytest.fixture
def written_here(run: Path) -> Path:
    """This machine writes on: from now on it knows how long the journal is."""
    seals = RunSeals(run)
    seals.plan(["ffffffffffff"])
    assert ask(run, "leaderboard").stderr == ""
    return run


def test_a_roll_back_is_said_where_the_run_was_written(written_here: Path) -> None:
    """The journal's end cut off, and what it vouched for: nothing in the storage tells of it."""
    run = written_here
    lines = (run / JOURNAL).read_bytes().splitlines(keepends=True)
    (run / JOURNAL).write_bytes(b"".join(lines[:-1]))
    expected = (
        f"its journal has {len(lines) - 1} lines, where this machine has written {len(lines)}"
    )
    said = ask(run, "leaderboard", "--json")
    assert said.exit_code == 0
    assert expected in said.stderr
    assert expected in json.loads(said.stdout)["remarks"][0]
    assert ask(run, "report").exit_code == 0
    assert expected in (run / "report.html").read_text()
    with pytest.warns(UserWarning, match=expected):
        medaug.leaderboard(run.name, storage=run.parent)


def test_another_run_in_its_place_is_said(written_here: Path, made: Path) -> None:
    """Sealed by whoever has no key: a run of its own, from the first line on."""
    run = written_here
    assert len(_made(run, "models")) > 1
    forged = json.loads((run / JOURNAL).read_bytes().splitlines()[0])
    del forged["self"], forged["mac"], forged["key"]
    (run / JOURNAL).write_bytes(sealed(forged) + b"\n")
    for path in (run / "trials", run / "bundles"):
        shutil.rmtree(path, ignore_errors=True)
    said = ask(run, "leaderboard").stderr
    assert "is another run than the one that this machine has written here" in said


def test_a_lost_journal_is_no_old_run(written_here: Path) -> None:
    run = written_here
    (run / JOURNAL).unlink()
    (run / "version.json").write_text('{"medaug": "0.1.0", "then": []}')
    said = ask(run, "leaderboard")
    assert said.exit_code == 0
    assert "has lost its journal, which this machine has written" in said.stderr


def test_the_note_harms_nobody(written_here: Path) -> None:
    """Damaged, gone or not to be written: nothing is known, and all goes on."""
    (notes,) = written_here.parents[1].glob("site.key.journals")
    (note,) = notes.iterdir()
    assert note.stat().st_mode & 0o777 == 0o600
    assert notes.stat().st_mode & 0o777 == 0o700
    assert written_here.name not in note.read_text()
    for content in (b"", b"[]", b"{}", b'{"first": 1, "lines": "x", "seal": null}', b"\xff"):
        note.write_bytes(content)
        assert ask(written_here, "leaderboard").stderr == ""
    note.unlink()
    assert ask(written_here, "leaderboard").stderr == ""
    notes.rmdir()
    notes.write_text("no folder")
    RunSeals(written_here).plan(["eeeeeeeeeeee"])
    assert ask(written_here, "leaderboard").stderr == ""


def test_a_driver_that_was_killed_leaves_what_resume_seals(run: Path) -> None:
    """Results of trials that were planned and have not ended: in a folder, in a bundle, or taken
    over; they are said, not refused."""
    record, other = classifiers(run)[:2]
    seals = RunSeals(run)
    seals.begin({}, [record.config.key, other.config.key])
    result = record.classified
    shutil.rmtree(other.folder)
    bundle = BundleFolder(run, bundle_key([other.config]))
    bundle.claim_all([other.config])
    bundle.commit([Member(other.config.key, other.classified, 1.0, 1e9)])
    TrialFolder(run, record.config.key).finish(result)
    said = ask(run, "leaderboard")
    assert said.exit_code == 0
    assert "2 of " in said.stderr
    assert "results are not sealed yet" in said.stderr
    RunSeals(run).begin(dict.fromkeys([record.config.key, other.config.key], "reused"), [])
    assert ask(run, "leaderboard").stderr == ""


def test_a_run_that_was_begun_before_there_were_journals(run: Path) -> None:
    """Its results may be of trials that no line has planned."""
    (run / JOURNAL).unlink()
    (run / "version.json").write_text('{"medaug": "0.1.0", "then": []}')
    seals = RunSeals(run)
    seals.flush()
    said = ask(run, "leaderboard")
    assert said.exit_code == 0
    assert "results are not sealed yet" in said.stderr
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert len(medaug.leaderboard(run.name, storage=run.parent))
