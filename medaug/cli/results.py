"""Looking at what came out: leaderboard, report, ui, models, unseal, export, verify."""

from __future__ import annotations

import json
from pathlib import Path

import click

from medaug.cli.options import JSON, NAME, STORAGE, checked_run, run_in, storage_of
from medaug.errors import IntegrityError, UserError


@click.command()
@click.argument("name", required=False)
@click.option("--published", is_flag=True, help="The four papers' own tables, judged alike.")
@STORAGE
@JSON
def leaderboard(name: str | None, published: bool, storage: Path | None, as_json: bool) -> None:
    """Print the leaderboard of run NAME with its flags."""
    if published:
        from medaug.results.published import published as judged
        from medaug.results.table import render_published

        rows = [row.to_json() for row in judged()] if as_json else []
        click.echo(json.dumps(rows, indent=1) if as_json else render_published())
        return
    if name is None:
        raise UserError("leaderboard: name a run, or give --published")
    from medaug.results.leaderboard import leaderboard_of
    from medaug.results.table import render

    board = leaderboard_of(checked_run(storage, name))
    click.echo(json.dumps(board.to_json(), indent=1) if as_json else render(board))


@click.command()
@JSON
def models(as_json: bool) -> None:
    """List every network with its exact number of parameters."""
    from medaug.models.catalogue import catalogue

    rows = catalogue()
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    for row in rows:
        config = " ".join(f"{key}={value}" for key, value in row["configuration"].items())
        click.echo(f"{row['study']}  {row['parameters']:>13,}  {row['name']}  {config}")


@click.command()
@NAME
@STORAGE
def report(name: str, storage: Path | None) -> None:
    """Write the HTML report of run NAME.

    Prints where it is.
    """
    from medaug.results.report.document import write_report
    from medaug.storage.run_folder import share_run

    folder = checked_run(storage, name)
    click.echo(write_report(folder))
    share_run(folder)


@click.command()
@NAME
@STORAGE
@JSON
def unseal(name: str, storage: Path | None, as_json: bool) -> None:
    """Score run NAME on its sealed patients, on record.

    Its best configuration, once: the record says when, and after how many were tried.
    """
    from medaug import unseal as opening
    from medaug.cli.display import make_display

    folder = checked_run(storage, name)
    with make_display().progress("reading the sealed patients") as progress:
        record = opening.unseal(folder, progress)
    click.echo(json.dumps(record, indent=1) if as_json else opening.render(folder, record))


@click.command()
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
    """Write the best generator of run NAME for others.

    To a new folder, with a card that says what it is and what it is worth.
    """
    from medaug.export import export as write

    out = out or Path(f"{name}-generator")
    click.echo(write(checked_run(storage, name), out, arm=arm, allow_near_copies=allow_near_copies))


@click.command()
@NAME
@STORAGE
def verify(name: str, storage: Path | None) -> None:
    """Check run NAME and its stores from end to end.

    All files behind its numbers are read again; a line for each store.
    """
    from medaug.verify import verify as look

    damaged = []
    for finding in look(run_in(storage, name)):
        click.echo(str(finding))
        damaged += [finding] if not finding.whole else []
    if damaged:
        first = damaged[0]
        raise IntegrityError(f"{name}: {len(damaged)} damaged, first {first.what}: {first.said}")


@click.command()
@STORAGE
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=5000,
    show_default=True,
    help="Port on this machine.",
)
def ui(storage: Path | None, port: int) -> None:
    """Open MLflow on the runs, for this machine only."""
    from medaug.tracking.server import serve

    serve(storage_of(storage), port)
