"""What somebody may type where a path, an address or a number belongs: one line, and its exit code."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from medaug import regular
from medaug.cli import main
from medaug.data.privacy import KEY_ENV

JOBS = Path(__file__).parents[2] / "jobs"
LONG, NUL = "x" * 300, "a\0b"


def ask(*words: str, **environment: str) -> Result:
    result = CliRunner().invoke(main, words, env=environment)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def said(result: Result, code: int) -> str:
    assert result.exit_code == code, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert line.isprintable()
    return line


@pytest.mark.parametrize(
    "text", [NUL, LONG, "y/" * 3000], ids=["NUL", "a long name", "a long path"]
)
@pytest.mark.parametrize(
    "words",
    [
        ("leaderboard", "demo", "--storage"),
        ("verify", "demo", "--storage"),
        ("score", "demo", "--data"),
        ("predict", "demo", "--data"),
        ("predict", "demo", "--data", "scans.csv", "--out"),
        ("export", "demo", "--out"),
        ("plan",),
        ("show",),
        ("check",),
        ("run",),
        ("run", "study.yaml", "--data"),
        ("submit",),
        ("init", "study"),
        ("init", "study", "folder", "--out"),
        ("bench", "store", "--folder"),
    ],
    ids=" ".join,
)
def test_paths_that_no_file_can_have(words: tuple[str, ...], text: str) -> None:
    line = said(ask(*words, text), 2)
    named = words[-1] if words[-1].startswith("--") else ""
    assert named in line
    assert "NUL" in line if text == NUL else "longer than a path can be" in line
    assert len(line) < 200


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A folder of things that are no files."""
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "endless.yaml").symlink_to("/dev/zero")
    (tmp_path / "round.yaml").symlink_to("round.yaml")
    (tmp_path / "large.yaml").write_bytes("é".encode() * 600_000)
    return tmp_path


@pytest.mark.parametrize("command", ["plan", "show", "check", "run"])
def test_a_study_is_a_file_of_a_page(
    odd: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is waited for, and an endless one is not read into memory."""
    monkeypatch.setattr(regular, "WRITER_WITHIN_S", 0.1)
    for name, why in {
        "pipe": "is a pipe that nobody writes to",
        "folder": "is no file",
        "endless": "is no file",
        "round": "Too many levels of symbolic links",
        "large": "larger than 1000000 bytes",
        "none": "no such file",
    }.items():
        line = said(ask(command, str(odd / f"{name}.yaml")), 2)
        assert f"{odd / name}.yaml: {why}" in line


def test_a_study_may_come_through_a_pipe() -> None:
    """``medaug show <(…)`` of a shell."""
    ours, theirs = os.pipe()
    os.write(theirs, b"nam: x\n")
    os.close(theirs)
    line = said(ask("show", f"/dev/fd/{ours}"), 2)
    os.close(ours)
    assert "nam: unknown key" in line


@pytest.mark.parametrize("table", ["pipe.yaml", "endless.yaml", "none.csv"])
def test_tables_are_files(odd: Path, table: str) -> None:
    (odd / "t.csv").symlink_to(odd / table)
    assert "no folder" in said(ask("init", "study", str(odd / "t.csv")), 2)
    assert "no such table" in said(ask("check", str(odd / "t.csv")), 2)


@pytest.mark.parametrize("command", ["run", "resume", "status"])
def test_an_empty_address_is_an_unset_variable(command: str) -> None:
    words = {"run": ["x.yaml"], "resume": ["x"], "status": []}[command]
    assert "--address: is empty" in said(ask(command, *words, "--address", ""), 2)


@pytest.mark.parametrize("uri", ["http://[", "http://h:99999999", "http://u:secret@h:x"])
def test_an_address_of_mlflow_that_is_none(tmp_path: Path, uri: str) -> None:
    from medaug.errors import UserError
    from medaug.tracking.uri import usable_uri

    with pytest.raises(UserError, match=r"tracking.uri: .* is no address") as why:
        usable_uri("tracking.uri", uri)
    assert "secret" not in str(why.value)


def test_a_database_in_no_folder(tmp_path: Path) -> None:
    from medaug.errors import UserError
    from medaug.tracking.uri import usable_uri

    assert usable_uri("tracking.uri", f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(UserError, match=rf"there is no folder {tmp_path}/none; make it"):
        usable_uri("tracking.uri", f"sqlite:///{tmp_path}/none/mlflow.db")


def test_an_address_of_a_bucket_s_server_that_is_none() -> None:
    line = said(
        ask("leaderboard", "x", "--storage", "s3://bucket/x", AWS_ENDPOINT_URL="http://["), 2
    )
    assert "AWS_ENDPOINT_URL" in line or "--storage" in line


@pytest.mark.parametrize("key", ["pipe.yaml", "folder.yaml", "endless.yaml"])
def test_a_key_is_a_file(odd: Path, key: str) -> None:
    (odd / "runs" / "x" / "trials").mkdir(parents=True)
    (odd / "runs" / "x" / "study.json").write_text("{}")
    words = ("leaderboard", "x", "--storage", str(odd / "runs"))
    line = said(ask(*words, **{KEY_ENV: str(odd / key)}), 3)
    assert f"site key {odd / key}: is no file; set {KEY_ENV}" in line


def test_a_place_that_cannot_be_written_is_a_line(tmp_path: Path) -> None:
    """Whichever command it is: an error of the operating system is none of the program."""
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file" / "below", Path("/proc/none")):
        line = said(ask("init", "study", str(_scans(tmp_path)), "--out", f"{out}/s.yaml"), 3)
        assert str(out) in line or str(tmp_path / "file") in line
        assert ".tmp-" not in line


def test_a_part_that_no_benchmark_has() -> None:
    line = said(ask("bench", "store", "--size", "tiny", "--part", "nope"), 2)
    assert "--part nope: bench store has no such part" in line


def test_an_account_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.delenv("HOME")
    assert "HOME: is not set" in said(ask("leaderboard", "x"), 3)


def _scans(folder: Path) -> Path:
    from PIL import Image

    scans = folder / "scans"
    for kind in ("a", "b"):
        (scans / kind).mkdir(parents=True, exist_ok=True)
        for n in range(6):
            rng = np.random.default_rng([n, ord(kind)])
            pixels = rng.integers(0, 255, (32, 32), np.uint8)
            Image.fromarray(pixels).save(scans / kind / f"patient{n}{kind}.png")
    return scans


@pytest.mark.parametrize(
    ("place", "mode", "word"),
    [
        ("site.key", 0o644, "readable by others; chmod 600"),
        ("runs/site.key", 0o600, "inside the storage"),
    ],
)
def test_a_key_that_cannot_be_used_leaves_nothing_behind(
    place: str, mode: int, word: str, tmp_path: Path
) -> None:
    key = tmp_path / place
    key.parent.mkdir(exist_ok=True)
    key.write_text("5eed" * 16)
    key.chmod(mode)
    before = sorted(tmp_path.rglob("*"))
    words = ("run", str(JOBS / "demo.yaml"), "--storage", str(tmp_path / "runs"))
    assert word in said(ask(*words, **{KEY_ENV: str(key)}), 2)
    assert sorted(tmp_path.rglob("*")) == before
