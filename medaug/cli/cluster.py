"""Runs on a cluster, and runs under way: submit, status, stop."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from medaug.cli.options import (
    JSON,
    NAME,
    PLACE,
    SET,
    SPEC,
    STORAGE,
    load,
    no_empty,
    run_in,
    storage_of,
)
from medaug.errors import UserError
from medaug.storage.uri import display_uri

if TYPE_CHECKING:
    from medaug.sweep.cluster.jobs import Job, Jobs

DASHBOARD = click.option(
    "--address",
    metavar="URL",
    callback=no_empty,
    help="http://HOST:8265, the dashboard of a Ray cluster.",
)
FOLLOW = click.option("--follow", is_flag=True, help="Print its log until it ends, and end as it.")


@click.command()
@SPEC
@click.option("--data", metavar="DIR", help="The folder of scans, as the cluster's nodes see it.")
@SET
@click.option(
    "--storage",
    type=PLACE,
    metavar="DIR",
    help="A folder that all of its nodes see, or s3://bucket/prefix [default: MEDAUG_STORAGE "
    "there].",
)
@click.option(
    "--address", required=True, metavar="URL", help="http://HOST:8265, Ray's dashboard there."
)
@click.option("--name", help="Name of this run [default: the study's].")
@click.option("--wait", is_flag=True, help="Let trials wait for the cluster to grow.")
@FOLLOW
def submit(
    spec: Path,
    data: str | None,
    overrides: tuple[str, ...],
    storage: Path | None,
    address: str,
    name: str | None,
    wait: bool,
    follow: bool,
) -> None:
    """Run the study SPEC as a job on a Ray cluster.

    This machine may go away meanwhile.

    The resolved study is sent, and nothing else: medaug and the scans are on the cluster.
    """
    study = load(spec, Path(data) if data else None, overrides, None, name)
    if storage is None and study.storage.is_absolute():
        storage = study.storage
    folders = {"--storage": storage, "data.root": study.data.root}
    for key, folder in folders.items():
        if folder is not None and not folder.is_absolute():
            raise UserError(f"{key}: '{folder}' means nothing there; give the cluster's own path")
    from medaug.sweep.cluster.jobs import run_command

    jobs = _connect(address)
    place = display_uri(storage) if storage else None
    command = run_command(study, storage=place, wait=wait)
    _see_it_run(jobs, jobs.submit(study.name, command, place), follow)


def resume_there(
    name: str,
    storage: str | None,
    address: str,
    *,
    wait: bool,
    overrides: Sequence[str],
    allow_version_skew: bool,
    follow: bool,
) -> None:
    """Go on with run ``name`` on the cluster whose dashboard is at ``address``.

    Without ``storage`` it is where the run's last job there kept it.
    """
    from medaug.sweep.cluster.jobs import resume_command

    jobs = _connect(address)
    if storage is None and (before := jobs.of_run(name)):
        storage = before[-1].storage
    command = resume_command(
        name,
        storage=storage,
        wait=wait,
        overrides=overrides,
        allow_version_skew=allow_version_skew,
    )
    _see_it_run(jobs, jobs.submit(name, command, storage), follow)


@click.command()
@click.argument("name", required=False)
@STORAGE
@DASHBOARD
@JSON
def status(name: str | None, storage: Path | None, address: str | None, as_json: bool) -> None:
    """Say what is running, and how far it is."""
    from medaug.ownership.status import runs_in, state_of
    from medaug.storage.run_folder import refresh_run

    folder = storage_of(storage)
    jobs = _connect(address).all() if address else []
    jobs = [job for job in jobs if name in (None, job.run)]
    known = runs_in(folder)
    runs = []
    for run_name in known:
        if name in (None, run_name):
            refresh_run(folder / run_name)
            runs.append(state_of(folder / run_name))
    if name is not None and not jobs and not runs:
        place = f"{display_uri(folder)} and {address}" if address else display_uri(folder)
        have = f"; have {', '.join(known)}" if known else ""
        raise UserError(f"{name}: no such run in {place}{have} (--storage, --address)")
    if as_json:
        found = {"jobs": [asdict(job) for job in jobs], "runs": [asdict(run) for run in runs]}
        click.echo(json.dumps(found, indent=1))
        return
    for job in jobs:
        click.echo(f"{job.run}: {job.state} ({job})")
    for run in runs:
        click.echo(run)
    if not jobs and not runs:
        click.echo(
            f"no runs in {display_uri(folder)}" + (f", no jobs at {address}" if address else "")
        )


@click.command()
@NAME
@STORAGE
@DASHBOARD
def stop(name: str, storage: Path | None, address: str | None) -> None:
    """End run NAME after the epochs under way.

    `medaug resume` goes on from there.
    """
    if address:
        jobs = _connect(address)
        if (job := jobs.running(name)) is None:
            click.echo(f"{name} is not running at {address}")
            return
        job = jobs.stop(job)
        click.echo(f"{job.id}: {job.state}; {jobs.last_words(job)}")
        click.echo(_go_on(job, address))
        return
    from medaug.ownership.status import stop as stop_here
    from medaug.storage.run_folder import study_data

    folder = run_in(storage, name)
    study_data(folder)  # a name that was mistyped is an error
    if (holder := stop_here(folder)) is None:
        click.echo(f"{name} is not running")
        return
    click.echo(f"stopped {name} ({holder})")
    click.echo(
        f"go on:  medaug resume {name}" + (f" --storage {display_uri(storage)}" if storage else "")
    )


def _connect(address: str) -> Jobs:
    from medaug.sweep.cluster.jobs import Jobs

    jobs = Jobs(address)
    if jobs.in_clear:
        click.echo(
            f"warning: the token goes to {jobs.address} unencrypted; use https, or a tunnel "
            "(ssh -L 8265:localhost:8265) and http://localhost:8265",
            err=True,
        )
    return jobs


def _see_it_run(jobs: Jobs, job: Job, follow: bool) -> None:
    """Print the job and what to type next; with ``follow`` its log, and end as it ends."""
    at = f"--address {jobs.address}"
    folder = job.storage or "$MEDAUG_STORAGE"
    click.echo(f"job:         {job.id}")
    click.echo(f"status:      medaug status {job.run} {at}")
    click.echo(f"stop:        medaug stop {job.run} {at}")
    click.echo(_go_on(job, jobs.address))
    click.echo(f"leaderboard: medaug leaderboard {job.run} --storage {folder}")
    try:
        job = jobs.follow(job, _print_log) if follow else jobs.settle(job)
    except KeyboardInterrupt:
        click.echo(f"\n{job.id} goes on without being watched")
        return
    if error := job.error():
        raise error
    click.echo(f"{job.id}: {job.state}")


def _go_on(job: Job, address: str) -> str:
    """A head that was replaced knows no jobs: the storage is named."""
    where = f" --storage {job.storage}" if job.storage else ""
    return f"go on:       medaug resume {job.run} --address {address}{where}"


def _print_log(text: str) -> None:
    click.echo(text, nl=False)
