"""Looking for known traps before they bite: doctor."""

from __future__ import annotations

import json
from pathlib import Path

import click

from medaug.cli.options import ADDRESS, JSON, STORAGE, storage_of
from medaug.errors import EnvironmentFault

_MARKS = {"pass": ("pass", "green"), "warn": ("warn", "yellow"), "fail": ("FAIL", "red")}


@click.command()
@STORAGE
@ADDRESS
@JSON
def doctor(storage: Path | None, address: str | None, as_json: bool) -> None:
    """Check machine, storage, MLflow and cluster for known traps.

    Each check passes, warns or fails, and says what to mend, and how.
    """
    from medaug.doctor.examine import examine
    from medaug.doctor.finding import Place

    findings = []
    for _, finding in examine(Place(storage_of(storage), address)):
        findings.append(finding)
        if as_json:
            continue
        mark, colour = _MARKS[finding.status]
        click.echo(f"{click.style(mark, fg=colour)}  {finding.check}: {finding.what}")
        if finding.fix:
            click.echo(f"      fix: {finding.fix}")
    if as_json:
        click.echo(json.dumps([finding.to_json() for finding in findings], indent=1))
    counts = {status: sum(f.status == status for f in findings) for status in _MARKS}
    if not as_json:
        click.echo(", ".join(f"{n} {status}" for status, n in counts.items()))
    if counts["fail"]:
        raise EnvironmentFault(f"doctor: {counts['fail']} checks failed; mend them as told above")
