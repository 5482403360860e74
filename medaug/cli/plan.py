"""What a study will take: plan."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from medaug.cli.options import ADDRESS, DATA, JSON, QUICK, SET, SPEC, STORAGE, checked_run, load


@click.command()
@SPEC
@DATA
@SET
@STORAGE
@ADDRESS
@QUICK
@click.option(
    "--pilot",
    metavar="NAME",
    help="A run in the same storage whose gains say how much this study's will vary.",
)
@JSON
def plan(
    spec: Path,
    data: Path | None,
    overrides: tuple[str, ...],
    storage: Path | None,
    address: str | None,
    quick: bool,
    pilot: str | None,
    as_json: bool,
) -> None:
    """Say what the study SPEC will take: hours, memory, disk.

    Measured by a rehearsal in miniature.
    """
    began = time.perf_counter()
    study = load(spec, data, overrides, storage, None, quick)  # first: mistakes are told at once
    from medaug.cli.display import make_display
    from medaug.plan.forecast.forecast import forecast, render

    before = None if pilot is None else checked_run(study.storage, pilot)
    loading_s = time.perf_counter() - began
    with make_display() as display:
        found = forecast(study, display, address=address, loading_s=loading_s, pilot=before)
    body = {"study": study.name, **found.cost.to_json(), "notes": found.notes}
    if (hours := study.resources.budget_hours) is not None:
        body |= {"budget_hours": hours, "within_budget": hours >= found.cost.device_hours}
    if found.power is not None:
        body |= {"power": found.power.to_json()}
    click.echo(json.dumps(body, indent=1) if as_json else render(found))
