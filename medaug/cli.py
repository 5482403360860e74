"""The ``medaug`` command. Every import that costs time happens inside a command."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medaug.errors import MedaugError, TrialsFailed, UserError

if TYPE_CHECKING:
    from medaug.spec import StudySpec
    from medaug.study import Finished

SPEC = click.argument("spec", type=click.Path(path_type=Path))
NAME = click.argument("name")
SET = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one key of the study."
)
DATA = click.option(
    "--data", type=click.Path(path_type=Path), metavar="DIR", help="The folder of scans."
)
STORAGE = click.option(
    "--storage",
    type=click.Path(path_type=Path),
    envvar="MEDAUG_STORAGE",
    metavar="DIR",
    help="Where runs, stores and models live [default: the study's own, ./runs].",
)
ADDRESS = click.option(
    "--address", metavar="HOST:PORT", help="A running Ray cluster [default: an embedded one]."
)
JSON = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")


class _Group(click.Group):
    """Turns medaug's own errors into one line and their exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except MedaugError as error:
            if ctx.params.get("debug"):
                raise
            click.echo(f"error: {error}", err=True)
            ctx.exit(error.exit_code)
        except BrokenPipeError:  # `medaug … | head`: the reader has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(0)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="medaug")
def main(debug: bool) -> None:
    """Data-augmentation studies for medical images, as distributed training sweeps."""
    os.umask(0o077)  # what is derived from patients' scans is for its owner alone


@main.command()
@SPEC
@DATA
@SET
@STORAGE
@ADDRESS
@click.option("--name", help="Name of this run [default: the study's].")
@click.option("--wait", is_flag=True, help="Wait for the cluster to have the resources.")
def run(
    spec: Path,
    data: Path | None,
    overrides: tuple[str, ...],
    storage: Path | None,
    address: str | None,
    name: str | None,
    wait: bool,
) -> None:
    """Run the study SPEC (a YAML file such as jobs/demo.yaml) to its leaderboard."""
    from medaug.study import run_study

    study = _load(spec, data, overrides, storage, name)
    _tell(run_study(study, address=address, wait=wait))


@main.command()
@NAME
@STORAGE
@ADDRESS
@click.option("--wait", is_flag=True, help="Wait for the cluster to have the resources.")
def resume(name: str, storage: Path | None, address: str | None, wait: bool) -> None:
    """Go on with run NAME after anything stopped it; finished trials are not run again."""
    from medaug.study import resume_study

    _tell(resume_study(_storage(storage) / name, address=address, wait=wait))


@main.command()
@click.argument("name", required=False)
@click.option("--published", is_flag=True, help="The four papers' own tables, judged alike.")
@STORAGE
@JSON
def leaderboard(name: str | None, published: bool, storage: Path | None, as_json: bool) -> None:
    """Print the leaderboard of run NAME: ranks, gains with intervals, flags."""
    if published:
        from medaug.tracking.published import published as judged
        from medaug.tracking.table import render_published

        rows = [row.to_json() for row in judged()] if as_json else []
        click.echo(json.dumps(rows, indent=1) if as_json else render_published())
        return
    if name is None:
        raise UserError("leaderboard: name a run, or give --published")
    from medaug.tracking.leaderboard import leaderboard_of
    from medaug.tracking.table import render

    board = leaderboard_of(_storage(storage) / name)
    click.echo(json.dumps(board.to_json(), indent=1) if as_json else render(board))


@main.command()
@JSON
def models(as_json: bool) -> None:
    """List every network of every study with its exact number of parameters."""
    from medaug.models.catalogue import catalogue

    rows = catalogue()
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    for row in rows:
        config = " ".join(f"{key}={value}" for key, value in row["configuration"].items())
        click.echo(f"{row['study']}  {row['parameters']:>13,}  {row['name']}  {config}")


@main.command()
@NAME
@STORAGE
def sync(name: str, storage: Path | None) -> None:
    """Send to MLflow what it missed of run NAME while it could not be reached."""
    from medaug.tracking.mlflow.tracker import sync as send

    click.echo(f"{send(_storage(storage) / name)} trials sent")


@main.command()
@NAME
@STORAGE
def report(name: str, storage: Path | None) -> None:
    """Write the HTML report of run NAME and print where it is."""
    from medaug.tracking.report.document import write_report

    click.echo(write_report(_storage(storage) / name))


@main.command()
@NAME
@STORAGE
@JSON
def unseal(name: str, storage: Path | None, as_json: bool) -> None:
    """Score the best configuration of run NAME on its sealed test patients; this is on record."""
    from medaug import unseal as opening
    from medaug.sweep.display import make_display

    folder = _storage(storage) / name
    with make_display().progress("reading the sealed patients") as progress:
        record = opening.unseal(folder, progress)
    click.echo(json.dumps(record, indent=1) if as_json else opening.render(folder, record))


@main.command()
@NAME
@STORAGE
@click.option("--arm", metavar="ARM", help="Of this arm [default: the best-placed one].")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The new folder [default: ./NAME-generator].",
)
@click.option(
    "--allow-near-copies",
    is_flag=True,
    help="Even if it copies its training rows more than unseen patients resemble them.",
)
def export(
    name: str, storage: Path | None, arm: str | None, out: Path | None, allow_near_copies: bool
) -> None:
    """Write the best generator of run NAME, with a card of what it is, to a folder for others."""
    from medaug.export import export as write

    out = out or Path(f"{name}-generator")
    click.echo(write(_storage(storage) / name, out, arm=arm, allow_near_copies=allow_near_copies))


@main.command()
@STORAGE
@click.option("--port", default=5000, show_default=True, help="Port on this machine.")
def ui(storage: Path | None, port: int) -> None:
    """Open MLflow on the runs' own database, on this machine only."""
    from medaug.tracking.mlflow.server import serve

    serve(_storage(storage), port)


@main.command()
@SPEC
@DATA
@SET
def show(spec: Path, data: Path | None, overrides: tuple[str, ...]) -> None:
    """Print the resolved study SPEC, every default filled in, and its signature."""
    import yaml

    study = _load(spec, data, overrides, None, None)
    click.echo(yaml.safe_dump(study.canonical(), sort_keys=False, width=100).rstrip())
    click.echo(f"# signature: {study.signature()}")


def _tell(finished: Finished) -> None:
    """Print the leaderboard, where everything is, and what to type next."""
    from medaug.tracking.table import render

    storage = finished.folder.parent
    elsewhere = "" if storage == Path("runs") else f" --storage {storage}"
    click.echo(render(finished.board))
    click.echo(f"report:      {finished.report}")
    click.echo(f"MLflow:      medaug ui{elsewhere}")
    click.echo(f"leaderboard: medaug leaderboard {finished.folder.name}{elsewhere}")
    if finished.failures:
        first = finished.failures[0]
        raise TrialsFailed(
            f"{len(finished.failures)} trials failed, first: {first} "
            f"(then: medaug resume {finished.folder.name}{elsewhere})"
        )


def _storage(storage: Path | None) -> Path:
    return storage or Path("runs")


def _load(
    spec: Path,
    data: Path | None,
    overrides: tuple[str, ...],
    storage: Path | None,
    name: str | None,
) -> StudySpec:
    from medaug.experiment import ARM_CONFIGS
    from medaug.spec import load_study

    options = list(overrides)
    if data is not None:
        options += [f"data.root={json.dumps(str(data))}"]
    if storage is not None:
        options += [f"storage={json.dumps(str(storage))}"]
    if name is not None:
        options += [f"name={json.dumps(name)}"]
    return load_study(spec, ARM_CONFIGS, options)
