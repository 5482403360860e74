"""What an attacker with the storage, but without the site's key, can make of a finished run."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from medaug.data.privacy import KEY_ENV
from medaug.ownership.seals import RunSeals, vouched
from medaug.ownership.unsealed import OF_RESULTS
from medaug.storage.journal import JOURNAL, Journal
from medaug.storage.trial_folder import TrialFolder
from medaug.store.digest import ALGORITHMS
from medaug.sweep.events import Outcome
from tests.storage.sealed_runs import ask, go_on, sealed_run, site_key, small_study

READERS = ("leaderboard", "report", "export", "unseal", "resume", "sync")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with every file sealed under a site key."""
    root = tmp_path_factory.mktemp("sealed")
    with site_key(root / "site.key"):
        return sealed_run(small_study(root / "runs"))


@pytest.fixture
def run(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, on the machine that made it."""
    monkeypatch.setenv(KEY_ENV, str(made.parents[1] / "site.key"))
    shutil.copytree(made.parent, tmp_path / "runs")
    return tmp_path / "runs" / made.name


def a_classifier(run: Path) -> Path:
    """The result of one."""
    paths = sorted(run.glob("trials/*/result.json"))
    return next(p for p in paths if json.loads(p.read_text())["stage"] == "classify")


def with_threshold_0(run: Path) -> Path:
    path = a_classifier(run)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"threshold": 0.0}))
    return path


def with_anothers_result(run: Path) -> Path:
    path = a_classifier(run)
    others = [
        p for p in run.glob("trials/*/result.json") if p.stat().st_size != path.stat().st_size
    ]
    shutil.copyfile(others[0], path)
    return path


def with_another_configuration(run: Path) -> Path:
    path = a_classifier(run).with_name("config.json")
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    return path


def with_another_protocol(run: Path) -> Path:
    path = run / "study.json"
    path.write_text(path.read_text().replace('"honest"', '"as_published"'))
    return path


@pytest.mark.parametrize(
    "bend",
    [with_threshold_0, with_anothers_result, with_another_configuration, with_another_protocol],
)
def test_whoever_reads_a_bent_run_is_told(run: Path, bend: Callable[[Path], Path]) -> None:
    path = bend(run)
    for reader in READERS:
        result = ask(run, reader)
        assert result.exit_code == 5, (reader, result.output)
        assert f"error: {path}: is not what this run has written; " in result.stderr
        assert "resume" in result.stderr or "restore it" in result.stderr
    assert ask(run, "verify").exit_code == 5


def test_a_line_of_ones_own_is_no_help_without_the_key(run: Path) -> None:
    path = with_threshold_0(run)
    journal = Journal(run, b"x" * 32)
    journal.seal(path)
    journal.flush()
    said = ask(run, "leaderboard")
    assert said.exit_code == 0
    assert "was sealed with another site's key, which cannot be checked here" in said.stderr

    lines = (run / JOURNAL).read_bytes().splitlines(keepends=True)
    (run / JOURNAL).write_bytes(b"".join(lines[:-1]))
    journal = Journal(run)  # without any
    journal.seal(path)
    journal.flush()
    assert (
        f"1 of {len(lines)} lines of its journal were sealed without this site's key"
        in ask(run, "leaderboard").stderr
    )


def test_a_deleted_trial_is_missed(run: Path) -> None:
    whole = json.loads(ask(run, "leaderboard", "--json").stdout)
    assert whole["trials_unfinished"] == 0
    shutil.rmtree(a_classifier(run).parent)
    said = ask(run, "leaderboard", "--json")
    assert said.exit_code == 0
    assert json.loads(said.stdout)["trials_unfinished"] == 1
    assert "files are missing" in said.stderr
    a_classifier(run).with_name("config.json").unlink()
    assert json.loads(ask(run, "leaderboard", "--json").stdout)["trials_unfinished"] == 2


def test_a_trial_without_its_configuration_runs_again(run: Path) -> None:
    path = a_classifier(run).with_name("config.json")
    whole = ask(run, "leaderboard", "--json").stdout
    path.unlink()
    assert "runs again what has no result" in ask(run, "leaderboard").stderr
    go_on(small_study(run.parent))
    said = ask(run, "leaderboard", "--json")
    assert said.stderr == ""
    rows, before = (json.loads(text)["rows"] for text in (said.stdout, whole))
    assert [row["scores"] for row in rows] == [row["scores"] for row in before]


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_named_with_what_resume_does(
    run: Path, make: Callable[[Path], None]
) -> None:
    path = a_classifier(run)
    path.unlink()
    make(path)
    said = ask(run, "leaderboard")
    assert said.exit_code == 5
    assert f"{path}: is no file but a" in said.stderr
    assert f"; delete {path.parent} and `medaug resume" in said.stderr


@pytest.mark.parametrize("key", [b"x" * 32, None], ids=["another key", "no key"])
def test_another_run_takes_over_only_what_this_site_has_sealed(
    run: Path, key: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    trial = a_classifier(run).parent
    assert vouched(trial)
    path = with_threshold_0(run)
    assert not vouched(trial)
    assert "is not what this run has written" in caplog.text
    journal = Journal(run, key)  # whoever can write the storage seals what he has forged
    journal.seal(path)
    journal.flush()
    assert not vouched(trial)
    assert f"{path}: run {run.name} has not sealed it with this site's key" in caplog.text
    others = [p.parent for p in run.glob("trials/*/result.json") if p != path]
    assert all(map(vouched, others))


def test_without_a_key_what_was_sealed_is_taken_over(
    run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(KEY_ENV, str(tmp_path / "no.key"))
    trial = a_classifier(run).parent
    assert vouched(trial)
    with_threshold_0(run)
    assert not vouched(trial)


def test_a_lost_journal_is_missed(run: Path) -> None:
    (run / JOURNAL).unlink()
    said = ask(run, "leaderboard")
    assert said.exit_code == 5
    assert f"error: {run / JOURNAL}: missing, though medaug 0.2.0 began this run" in said.stderr


def test_a_run_of_version_0_1_is_read_with_a_line(run: Path) -> None:
    (run / JOURNAL).unlink()
    (run / "version.json").write_text('{"medaug": "0.1.0", "then": []}')
    said = ask(run, "leaderboard")
    assert said.exit_code == 0
    assert said.stderr == (
        f"{run.name}: is unsealed (made by a medaug before 0.2), nothing vouches for it\n"
    )


def test_results_that_nobody_heard_of_are_said_and_then_sealed(run: Path) -> None:
    lines = (run / JOURNAL).read_bytes().splitlines(keepends=True)
    sealed_last, n = (
        len(json.loads(lines[-1])["ended"]),
        sum(1 for pattern in OF_RESULTS for _ in run.glob(pattern)),
    )
    (run / JOURNAL).write_bytes(b"".join(lines[:-1]))  # the driver died before it could
    said = ask(run, "leaderboard")
    assert f"{sealed_last} of {n} results are not sealed yet" in said.stderr
    keys = [path.parent.name for path in run.glob("trials/*/result.json")]
    RunSeals(run).begin(dict.fromkeys(keys, "reused"), [])
    assert ask(run, "leaderboard").stderr == ""


def test_a_trial_that_runs_again_is_sealed_again(run: Path) -> None:
    path = a_classifier(run)
    key = path.parent.name
    seals = RunSeals(run)
    seals.begin({}, [key])
    folder = TrialFolder(run, key)
    result = folder.result()
    assert result is not None
    path.unlink()
    folder.log_epoch({"epoch": 5, "metrics": {}, "seconds": 1, "save_seconds": 0, "time": 2e9})
    assert ask(run, "leaderboard").exit_code == 0, "while it runs its files are nobody's"
    folder.finish(result)
    seals.on_trial_end(Outcome(key, "done", 5, result))
    seals.flush()
    said = ask(run, "leaderboard")
    assert (said.exit_code, said.stderr) == (0, "")


def test_verify_looks_at_every_store_and_model(run: Path) -> None:
    said = ask(run, "verify")
    assert said.exit_code == 0, said.output
    named = [
        path.name
        for kind in ("stores", "models")
        for path in (run.parent / kind).iterdir()
        if path.is_dir()
    ]
    for name in named:
        (line,) = [line for line in said.stdout.splitlines() if f"/{name} " in line]
        assert "whole" in line
    shard = next((run.parent / "stores").glob("rows-*/*.arrow"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    said = ask(run, "verify")
    assert said.exit_code == 5
    assert f"stores/{shard.parent.name}" in said.stderr
    assert said.stdout.count("DAMAGED") == 1


def test_a_package_that_is_missing_is_no_damage(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(ALGORITHMS, "blake3")
    said = ask(run, "verify")
    assert said.exit_code == 3
    assert "pip install blake3" in said.stderr
    assert "DAMAGED" not in said.output
