"""Arguments and options that several commands share, and what they stand for."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medaug.errors import UserError
from medaug.storage.uri import display_uri, local

if TYPE_CHECKING:
    from medaug.spec import ArmSpec, StudySpec

MOST_PATH_BYTES, MOST_NAME_BYTES = 4095, 255
"""Of Linux's file systems."""


def possible_path(text: str, what: str) -> Path:
    """``text`` as a path; raises UserError where no file can be called so."""
    path = Path(text)
    if "\0" in text:
        raise UserError(f"{what}: {text[:64]!r} holds a NUL, which no path can; leave it out")
    names = [os.fsencode(part) for part in path.parts]
    if len(os.fsencode(text)) > MOST_PATH_BYTES or any(len(n) > MOST_NAME_BYTES for n in names):
        raise UserError(f"{what}: {text[:64]!r}… is longer than a path can be; give a shorter one")
    return path


class _Path(click.ParamType[Path]):
    """Any path that a file can have, whether one is there or not."""

    name = "path"

    def convert(self, value: Any, param: Any, ctx: Any) -> Path:
        return possible_path(os.fspath(value), _called(param))


def _called(param: Any) -> str:
    """An option as it is typed, an argument as the help calls it."""
    return str(param.opts[0]) if param.opts[0].startswith("-") else str(param.human_readable_name)


PATH = _Path()
SPEC = click.argument("spec", type=PATH)
NAME = click.argument("name")
SET = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one key of the study."
)
DATA = click.option(
    "--data",
    type=PATH,
    metavar="DIR",
    help="The folder of scans, or their table (.csv).",
)


class _Place(click.ParamType[Path]):
    """A folder, or a bucket: then the path of this machine's copy of it."""

    name = "place"

    def convert(self, value: Any, param: Any, ctx: Any) -> Path:
        try:
            path = local(value)
        except ValueError as error:
            raise UserError(f"--storage: {error}") from None
        possible_path(os.fspath(path), "--storage")
        return path


PLACE = _Place()
STORAGE = click.option(
    "--storage",
    type=PLACE,
    envvar="MEDAUG_STORAGE",
    metavar="DIR",
    help="Where runs, stores and models live: a folder, or s3://bucket/prefix [default: the "
    "study's own, ./runs].",
)
QUICK = click.option(
    "--quick",
    is_flag=True,
    help="A first look in minutes, as NAME-quick: few patients, epochs and rows, one seed.",
)


def no_empty(ctx: Any, param: Any, value: str | None) -> str | None:
    """Of an unset variable, most likely: no reason to take what stands for no option at all."""
    if value is not None and not value.strip():
        raise UserError(f"{_called(param)}: is empty; give one, or leave the option out")
    return value


ADDRESS = click.option(
    "--address",
    metavar="HOST:PORT",
    callback=no_empty,
    help="A running Ray cluster [default: an embedded one].",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")


def storage_of(storage: Path | None) -> Path:
    """The storage, ``runs`` by default; of a bucket, this machine's copy with the names of its
    runs."""
    from medaug.storage.run_folder import refresh_names

    storage = storage or Path("runs")
    refresh_names(storage)
    return storage


def run_in(storage: Path | None, name: str) -> Path:
    """The folder of run ``name``; of a bucket, this machine's copy of it, up to date."""
    from medaug.storage import run_folder

    return run_folder.run_in(storage or Path("runs"), name)


def checked_run(storage: Path | None, name: str, *, made: bool = False) -> Path:
    """:func:`checked`, of which what the reader should know goes to stderr."""
    folder, remarks = checked(storage, name, made=made)
    say(remarks)
    return folder


def checked(storage: Path | None, name: str, *, made: bool = False) -> tuple[Path, tuple[str, ...]]:
    """:func:`run_in`, after a look at whether the run is what it has written; with what the reader
    should know of that. ``made``: as in ``check_run``.

    Raises:
        IntegrityError: a file of the run has been changed.
    """
    from medaug.ownership.seals import check_run

    folder = run_in(storage, name)
    there = (folder / "study.json").exists()
    return folder, tuple(check_run(folder, made=made).remarks(name)) if there else ()


def say(remarks: Iterable[str]) -> None:
    """To stderr, a line each."""
    for remark in remarks:
        click.echo(remark, err=True)


def load(
    spec: Path,
    data: Path | None,
    overrides: tuple[str, ...],
    storage: Path | None,
    name: str | None,
    quick: bool = False,
) -> StudySpec:
    """The study in file ``spec`` with the command line's options put over it."""
    from medaug.spec import load_study
    from medaug.spec.quick import quick as made_small

    options = list(overrides)
    if data is not None:
        key = "table" if data.suffix.lower() in (".csv", ".tsv") else "root"
        options += [f"data.{key}={json.dumps(str(data))}"]
    if storage is not None:
        options += [f"storage={json.dumps(display_uri(storage))}"]
    if name is not None:
        options += [f"name={json.dumps(name)}"]
    study = load_study(spec, _arm_types, options, _choices)
    if quick:
        study = made_small(study)
        return study.model_copy(update={"name": name}) if name else study
    return study


def _arm_types() -> Mapping[str, type[ArmSpec]]:
    from medaug.spec.arms import ARM_CONFIGS

    return ARM_CONFIGS


def _choices() -> Mapping[str, Collection[str]]:
    from medaug.data.layouts import LAYOUTS
    from medaug.spec.classifier import CLASSIFIER_KINDS

    return {"data.layout": LAYOUTS, "classifier.kind": CLASSIFIER_KINDS}
