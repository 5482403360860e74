"""Running a study: run, resume, show, sync."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from medaug.cli.cluster import FOLLOW, resume_there
from medaug.cli.options import (
    ADDRESS,
    DATA,
    NAME,
    QUICK,
    SET,
    SPEC,
    STORAGE,
    checked_run,
    load,
    no_empty,
)
from medaug.errors import TrialsFailed
from medaug.storage.uri import display_uri

if TYPE_CHECKING:
    from medaug.study import Finished


@click.command()
@SPEC
@DATA
@SET
@STORAGE
@ADDRESS
@click.option("--name", help="Name of this run [default: the study's].")
@QUICK
@click.option("--wait", is_flag=True, help="Wait for the cluster to have the resources.")
@click.option("--fork", is_flag=True, help="Beside another study of this name, under a new one.")
@click.option("--mkdir", is_flag=True, help="Make the storage's parent folders too.")
def run(
    spec: Path,
    data: Path | None,
    overrides: tuple[str, ...],
    storage: Path | None,
    address: str | None,
    name: str | None,
    quick: bool,
    wait: bool,
    fork: bool,
    mkdir: bool,
) -> None:
    """Run the study SPEC to its leaderboard.

    SPEC is a YAML file such as jobs/demo.yaml.
    """
    from medaug.storage import storage_at

    study = load(spec, data, overrides, storage, name, quick)  # first: mistakes are told at once
    if not mkdir:
        storage_at(study.storage).check_parent(study.storage)
    from medaug.cli.display import make_display
    from medaug.ownership.identity import forked
    from medaug.ownership.watchdog import StorageWatchdog
    from medaug.study import run_study

    with StorageWatchdog(study.storage), make_display() as display:
        own = forked(study) if fork else study
        finished = run_study(own, address=address, wait=wait, display=display)
        _tell(finished)
        if quick:
            click.echo(f"quick run: scores are not meaningful; next: medaug plan {spec}")


@click.command()
@NAME
@STORAGE
@click.option(
    "--address",
    metavar="ADDRESS",
    callback=no_empty,
    help="HOST:PORT of a running Ray cluster, or http://HOST:8265 to submit it there as a job.",
)
@click.option("--wait", is_flag=True, help="Wait for the cluster to have the resources.")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Go on with another one of resources.* or tracking.*.",
)
@click.option(
    "--allow-version-skew", is_flag=True, help="Also if another version of medaug began it."
)
@FOLLOW
@click.pass_context
def resume(
    ctx: click.Context,
    name: str,
    storage: Path | None,
    address: str | None,
    wait: bool,
    overrides: tuple[str, ...],
    allow_version_skew: bool,
    follow: bool,
) -> None:
    """Go on with run NAME after anything stopped it.

    Finished trials are not run again.
    """
    from medaug.spec.loader import check_resumable

    check_resumable(overrides)  # first: mistakes are told at once
    if address and address.startswith(("http://", "https://")):
        typed = ctx.get_parameter_source("storage") is ParameterSource.COMMANDLINE
        resume_there(
            name,
            display_uri(storage) if storage and typed else None,
            address,
            wait=wait,
            overrides=overrides,
            allow_version_skew=allow_version_skew,
            follow=follow,
        )
        return
    from medaug.cli.display import make_display
    from medaug.ownership.watchdog import StorageWatchdog
    from medaug.study import resume_study

    folder = checked_run(storage, name)
    with StorageWatchdog(folder.parent), make_display() as display:
        finished = resume_study(
            folder,
            address=address,
            wait=wait,
            allow_version_skew=allow_version_skew,
            overrides=overrides,
            display=display,
        )
        _tell(finished)


@click.command()
@SPEC
@DATA
@SET
def show(spec: Path, data: Path | None, overrides: tuple[str, ...]) -> None:
    """Print the study SPEC with every default filled in."""
    import yaml

    study = load(spec, data, overrides, None, None)
    click.echo(yaml.safe_dump(study.canonical(), sort_keys=False, width=100).rstrip())
    click.echo(f"# signature: {study.signature()}")


@click.command()
@NAME
@STORAGE
def sync(name: str, storage: Path | None) -> None:
    """Send to MLflow what it missed of run NAME."""
    from medaug.tracking.tracker import sync as send

    click.echo(f"{send(checked_run(storage, name))} trials sent")


def _tell(finished: Finished) -> None:
    """Print the leaderboard, where everything is, and what to type next; raise what is amiss."""
    storage = finished.folder.parent
    elsewhere = "" if storage == Path("runs") else f" --storage {display_uri(storage)}"
    try:
        _print_results(finished, elsewhere)
    finally:  # whether somebody reads it or not
        _raise_what_is_amiss(finished, elsewhere)


def _print_results(finished: Finished, elsewhere: str) -> None:
    from medaug.results.table import render

    click.echo(render(finished.board))
    click.echo(f"report:      {finished.report}")
    click.echo(f"MLflow:      medaug ui{elsewhere}")
    click.echo(f"leaderboard: medaug leaderboard {finished.folder.name}{elsewhere}")


def _raise_what_is_amiss(finished: Finished, elsewhere: str) -> None:
    if finished.failures:
        first = finished.failures[0]
        raise TrialsFailed(
            f"{len(finished.failures)} trials failed, first: {first} "
            f"(then: medaug resume {finished.folder.name}{elsewhere})"
        )
    if finished.left_out:
        raise TrialsFailed(
            f"{finished.left_out} scans were left out: "
            f"{finished.folder.parent / 'stores' / 'rejects.jsonl'} says "
            "which and why; mend them, or take them away, and run again under another --name"
        )
