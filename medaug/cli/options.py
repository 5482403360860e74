"""Arguments and options that several commands share, and what they stand for."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medaug.errors import UserError
from medaug.storage.uri import display_uri, local

if TYPE_CHECKING:
    from medaug.spec import ArmSpec, StudySpec

SPEC = click.argument("spec", type=click.Path(path_type=Path))
NAME = click.argument("name")
SET = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one key of the study."
)
DATA = click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The folder of scans, or their table (.csv).",
)


class _Place(click.ParamType[Path]):
    """A folder, or a bucket: then the path of this machine's copy of it."""

    name = "place"

    def convert(self, value: Any, param: Any, ctx: Any) -> Path:
        try:
            return local(value)
        except ValueError as error:
            raise UserError(f"--storage: {error}") from None


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
ADDRESS = click.option(
    "--address", metavar="HOST:PORT", help="A running Ray cluster [default: an embedded one]."
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


def checked_run(storage: Path | None, name: str) -> Path:
    """:func:`run_in`, after a look at whether the run is what it has written.

    What the reader should know of that goes to stderr.

    Raises:
        IntegrityError: a file of the run has been changed.
    """
    from medaug.ownership.seals import check_run

    folder = run_in(storage, name)
    for remark in check_run(folder).remarks(name) if (folder / "study.json").exists() else ():
        click.echo(remark, err=True)
    return folder


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
