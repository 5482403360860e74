"""A finished run on a bad day: its storage has moved, nobody reads the output, few files may be open."""

from __future__ import annotations

import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from medaug.cli import main
from tests.storage.sealed_runs import sealed_run, site_key, small_study


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("days")
    with site_key(root / "site.key"):
        yield sealed_run(small_study(root / "runs", seeds=[0, 1, 2]))


def ask(run: Path, storage: Path, command: str) -> Result:
    words = [*command.split(), run.name, "--storage", str(storage)]
    return CliRunner().invoke(main, words)


READS = ["leaderboard --json", "verify", "report"]


def test_storage_that_was_moved_says_the_same(run: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "runs"
    shutil.copytree(run.parent, moved, copy_function=shutil.copy2)
    for command in READS:
        here, there = ask(run, run.parent, command), ask(run, moved, command)
        assert (here.exit_code, there.exit_code) == (0, 0), there.output
        assert here.stdout.replace(str(run.parent), "") == there.stdout.replace(str(moved), "")
    for path in moved.rglob("*.html"):
        assert str(run.parent) not in path.read_text()


@contextmanager
def few_open_files(n: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (n, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_256_files_may_be_open(run: Path) -> None:
    for command in READS:
        many = ask(run, run.parent, command)
        with few_open_files(256):
            few = ask(run, run.parent, command)
        assert (few.exit_code, few.stdout) == (0, many.stdout), few.output


@pytest.mark.parametrize("charset", ["ascii", "latin-1", "cp1252"])
def test_a_terminal_of_few_characters_loses_no_sign(run: Path, charset: str) -> None:
    """A minus that a terminal cannot show is a minus, not a question mark."""
    words = ["leaderboard", run.name, "--storage", str(run.parent)]
    whole = CliRunner().invoke(main, words).stdout
    assert "−" in whole
    few = CliRunner(charset=charset).invoke(main, words)
    assert few.exit_code == 0, few.output
    # Where the locale says ASCII, click writes UTF-8: it is most likely not set at all.
    text = few.stdout_bytes.decode("utf-8" if charset == "ascii" else charset)
    shown = [re.findall(r"[−-]\d\.\d{3}", each) for each in (whole, text)]
    assert shown[0]
    assert [n.replace("−", "-") for n in shown[0]] == [n.replace("−", "-") for n in shown[1]]
    assert "?" not in text


@pytest.mark.parametrize(
    "environment",
    [{"COLUMNS": "1"}, {"COLUMNS": "x"}, {"TERM": "dumb"}, {"NO_COLOR": "1", "LC_ALL": "C"}],
    ids=str,
)
def test_an_odd_terminal(run: Path, environment: dict[str, str]) -> None:
    done = CliRunner().invoke(
        main, ["leaderboard", run.name, "--storage", str(run.parent)], env=environment
    )
    assert done.exit_code == 0, done.output
    assert "none" in done.stdout


@pytest.mark.parametrize("after", [">&-", "| true", "> /dev/full"])
def test_nobody_takes_the_output(run: Path, after: str) -> None:
    """Of a shell that closed it, pipes it into what has ended, or writes it to a full disk."""
    done = subprocess.run(
        [
            "bash",
            "-c",
            f'"$0" -m medaug leaderboard "$@" {after}; exit ${{PIPESTATUS[0]}}',
            sys.executable,
            run.name,
            "--storage",
            str(run.parent),
        ],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
    assert done.returncode == (3 if "full" in after else 0), done.stderr
    assert len(done.stderr.splitlines()) == (1 if "full" in after else 0), done.stderr


@pytest.mark.parametrize(
    "name", ["../small", "/etc", ".", "..", "", "a/b", "a\0b", "x" * 300, "é" * 200, "a\n"]
)
@pytest.mark.parametrize("command", ["leaderboard", "report", "export", "unseal", "sync", "resume"])
def test_no_name_leads_out_of_the_storage(tmp_path: Path, command: str, name: str) -> None:
    more = ["--out", str(tmp_path / "out")] if command == "export" else []
    words = [command, "--storage", str(tmp_path), *more, "--", name]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2, result.output
    assert "cannot be a run's name" in result.stderr
    assert len(result.stderr.splitlines()) == 1
