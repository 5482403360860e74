"""Looking at what came out: leaderboards, report, ui, models, unseal, score, export, verify."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import click

from medaug.cli.options import (
    JSON,
    NAME,
    PATH,
    STORAGE,
    checked,
    checked_run,
    run_in,
    say,
    storage_of,
)
from medaug.errors import IntegrityError, UserError

RETRAIN = click.option(
    "--retrain",
    is_flag=True,
    help="Train networks again whose weights were not kept; takes as long as it took.",
)


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

    folder, remarks = checked(storage, name)
    say(remarks)
    board = replace(leaderboard_of(folder), remarks=remarks)
    click.echo(json.dumps(board.to_json(), indent=1) if as_json else render(board))


@click.command()
@NAME
@click.argument("other")
@STORAGE
@JSON
def compare(name: str, other: str, storage: Path | None, as_json: bool) -> None:
    """Put the leaderboards of runs NAME and OTHER side by side.

    First, what differs in their data, protocol, split and settings; then every configuration that
    either has, with the paired interval of the difference where both score the same patients.
    """
    from medaug.results import compare as comparing

    found = comparing.compare(checked_run(storage, name), checked_run(storage, other))
    click.echo(json.dumps(found.to_json(), indent=1) if as_json else comparing.render(found))


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

    folder, remarks = checked(storage, name)
    say(remarks)
    click.echo(write_report(folder, remarks))
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

    folder = checked_run(storage, name, made=True)
    with make_display().progress("reading the sealed patients") as progress:
        record = opening.unseal(folder, progress)
    click.echo(json.dumps(record, indent=1) if as_json else opening.render(folder, record))


@click.command()
@NAME
@click.option("--part", type=click.Choice(["external"]), help="This part of the study's own table.")
@click.option(
    "--data",
    "table",
    type=PATH,
    metavar="FILE",
    help="The table of another cohort (.csv), all of it.",
)
@RETRAIN
@STORAGE
@JSON
def score(
    name: str,
    part: str | None,
    table: Path | None,
    retrain: bool,
    storage: Path | None,
    as_json: bool,
) -> None:
    """Score run NAME on another cohort, on record.

    Its best configuration and what that is compared with, once a cohort; nothing is fitted to it.
    A cohort with copies of the study's images is refused.
    """
    from medaug import score as scoring
    from medaug.cli.display import make_display

    if (part is None) == (table is None):
        raise UserError("score: give --part external, or --data FILE with another table")
    folder = checked_run(storage, name, made=True)
    with make_display() as display:
        record = scoring.score(folder, table, display, retrain=retrain)
    click.echo(json.dumps(record, indent=1) if as_json else scoring.render(folder, record))


@click.command()
@NAME
@click.option(
    "--data",
    "table",
    type=PATH,
    required=True,
    metavar="FILE",
    help="A table of scans (.csv); it needs no classes.",
)
@click.option(
    "--out",
    type=PATH,
    metavar="FILE",
    help="The new CSV [default: ./NAME-predictions.csv].",
)
@click.option(
    "--configuration", metavar="TITLE", help="As the leaderboard calls it [default: the best]."
)
@RETRAIN
@STORAGE
def predict(
    name: str,
    table: Path,
    out: Path | None,
    configuration: str | None,
    retrain: bool,
    storage: Path | None,
) -> None:
    """Write what run NAME says of other scans.

    A CSV with the probability of each class, for every scan and every patient. For research only.
    """
    from medaug import score as scoring
    from medaug.cli.display import make_display

    out = out or Path(f"{name}-predictions.csv")
    if out.exists():
        raise UserError(f"{out}: is there already; give another --out")
    folder = checked_run(storage, name, made=True)
    with make_display() as display:
        title = scoring.predict(
            folder, table, out, display, configuration=configuration, retrain=retrain
        )
    click.echo(f"wrote {out}: {title}, probabilities of every scan and patient")
    click.echo(scoring.RESEARCH_ONLY)


@click.command()
@NAME
@STORAGE
@click.option("--arm", metavar="ARM", help="Of this arm [default: the best-placed one].")
@click.option(
    "--out",
    type=PATH,
    metavar="DIR",
    help="The new folder [default: ./NAME-generator].",
)
@click.option(
    "--samples",
    type=click.IntRange(1),
    metavar="N",
    help="N synthetic rows of it, classes in turn, instead of its weights [to ./NAME-samples].",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["png", "nifti", "npz"]),
    help="Of the samples: images, or arrays of any row [default: npz].",
)
@click.option(
    "--allow-near-copies",
    is_flag=True,
    help="Even if it copies its training rows more than unseen patients resemble them.",
)
def export(
    name: str,
    storage: Path | None,
    arm: str | None,
    out: Path | None,
    samples: int | None,
    form: Literal["png", "nifti", "npz"] | None,
    allow_near_copies: bool,
) -> None:
    """Write the best generator of run NAME for others, or its rows.

    To a new folder, with a card that says what it is and what it is worth.
    """
    from medaug import export as leaving

    if form is not None and samples is None:
        raise UserError("export: --format is of samples; give --samples N as well")
    folder = checked_run(storage, name, made=True)
    own: dict[str, Any] = {"arm": arm, "allow_near_copies": allow_near_copies}
    if samples is None:
        click.echo(leaving.export(folder, out or Path(f"{name}-generator"), **own))
        return
    out = out or Path(f"{name}-samples")
    click.echo(leaving.export_samples(folder, out, samples, form or "npz", **own))


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
