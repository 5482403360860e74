"""Every command of README and docs, run where a small finished run will do, else parsed."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
from pathlib import Path

import click
import pytest
from PIL import Image

from medaug.cli import main
from medaug.cli.options import load
from tests.docs.pages import ELSEWHERE, OUTSIDE, PAGES, ROOT, blocks, commands, paths, shown
from tests.integration.small_study import Finished

SUBSTITUTES = {"name": "small", "allow_near_copies": True}
"""Values of parameters whatever the page says: the run that there is, and it was trained for four
epochs."""


@pytest.fixture
def desk(small: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder as after ``make demo``: our files, a folder of scans, finished runs."""
    for name in ("jobs", "cluster", "docker"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "runs").symlink_to(small.storage)
    for place in range(24):
        folder = tmp_path / "DIR" / ("sick", "well")[place % 2]
        folder.mkdir(parents=True, exist_ok=True)
        image = Image.effect_noise((40, 40), 20.0 + 30 * (place % 2))
        image.save(folder / f"p{place:02}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEDAUG_STORAGE", str(small.storage))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def test_the_readme_has_the_two_commands() -> None:
    found = [shown(words) for words in commands(ROOT / "README.md")]
    assert {"make demo", "make test"} <= set(found)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_the_page_works(page: Path, desk: Path) -> None:
    for words in commands(page):
        try:
            run(words)
        except Exception as error:
            raise AssertionError(f"{shown(words)}: {error!r}") from error


def run(words: list[str]) -> None:
    missing = [str(path) for path in paths(words) if not path.exists()]
    assert not missing, f"names {missing}"
    program, *rest = words
    if program == "medaug":
        run_medaug(rest)
    elif program == "make":
        subprocess.run(["make", "--dry-run", *rest], cwd=ROOT, check=True, capture_output=True)
    else:
        assert program in OUTSIDE, "is in no table of tests/docs/pages.py"


def run_medaug(words: list[str]) -> None:
    if words[0].startswith("-"):
        with contextlib.redirect_stdout(io.StringIO()), pytest.raises(SystemExit) as left:
            main(words)
        assert left.value.code == 0
        return
    name, *rest = words
    command = main.commands[name]
    while isinstance(command, click.Group):
        command, rest = command.commands[rest[0]], rest[1:]
    context = command.make_context(name, rest)  # raises on an unknown option
    if f"medaug {name}" in ELSEWHERE:
        if "spec" in context.params:
            read_study(context.params)
        return
    for key, value in SUBSTITUTES.items():
        if context.params.get(key) is not None:
            context.params[key] = value
    with contextlib.redirect_stdout(io.StringIO()) as out, context:
        command.invoke(context)
    assert out.getvalue()


def read_study(params: dict[str, object]) -> None:
    """As the command would, before anything is taken."""
    data = params.get("data")
    study = load(
        params["spec"],  # type: ignore[arg-type]
        Path(str(data)) if data else None,
        params["overrides"],  # type: ignore[arg-type]
        None,
        params.get("name"),  # type: ignore[arg-type]
    )
    assert study.arms


@pytest.mark.parametrize(("where", "words"), ELSEWHERE.values(), ids=ELSEWHERE)
def test_what_is_not_run_here_is_run_elsewhere(where: str, words: str) -> None:
    place = ROOT / where
    files = [place] if place.is_file() else sorted(place.glob("*.py"))
    assert any(words in file.read_text() for file in files)


def test_every_command_is_described() -> None:
    for command in main.commands.values():
        assert command.help
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help or parameter.show_default, (command.name, parameter.name)


def test_the_list_of_commands_is_not_cut_off() -> None:
    text = main.get_help(click.Context(main, info_name="medaug", terminal_width=80))
    assert "..." not in text.replace("[ARGS]...", "")
    assert all(f"\n  {name} " in text for name in main.commands)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_python_of_the_page_runs(page: Path, desk: Path) -> None:
    for block in blocks(page):
        if block.language == "python" and block.file is None:
            with contextlib.redirect_stdout(io.StringIO()) as out:
                text = block.text.replace('"demo"', '"small"')
                exec(compile(text, str(page), "exec"), {})
            assert out.getvalue()


def test_every_page_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    for page in PAGES[1:]:
        assert f"]({page.relative_to(ROOT)})" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in link:
            assert (page.parent / link).exists(), link
