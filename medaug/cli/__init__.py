"""The ``medaug`` command. Every import that costs time happens inside a command."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from medaug.cli import bench, cluster, results, study
from medaug.errors import MedaugError


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


for command in (
    study.run,
    study.resume,
    study.show,
    study.sync,
    cluster.submit,
    cluster.status,
    cluster.stop,
    results.leaderboard,
    results.models,
    results.report,
    results.unseal,
    results.export,
    results.ui,
    bench.bench,
):
    main.add_command(command)
