"""Every command in the README exists, with these options; both `make` targets too."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import click
import pytest

from medaug.cli import main

ROOT = Path(__file__).parent.parent
COMMANDS = [
    line
    for block in re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    for line in block.splitlines()
]


def test_the_readme_has_commands() -> None:
    assert {"make demo", "make test"} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_command_of_the_readme_is_understood(command: str) -> None:
    program, *words = shlex.split(command)
    if program == "make":
        subprocess.run(["make", "--dry-run", *words], cwd=ROOT, check=True, capture_output=True)
        return
    assert program == "medaug"
    name, *rest = words
    parsed = main.commands[name].make_context(name, rest)  # raises on an unknown option
    for value in parsed.params.values():
        if isinstance(value, Path) and value.suffix == ".yaml":
            assert (ROOT / value).is_file()


def test_every_command_is_described() -> None:
    for command in main.commands.values():
        assert command.help
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help or parameter.show_default, (command.name, parameter.name)
