"""Measuring medaug next to its peers: bench."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from medaug.cli.options import JSON, PATH
from medaug.errors import UserError


@click.command()
@click.argument("name", type=click.Choice(["store", "steps", "ddp", "gpu", "sweep", "first"]))
@JSON
@click.option("--markdown", is_flag=True, help="A table as in docs/benchmarks.md.")
@click.option("--quick", is_flag=True, help="The same as --size quick.")
@click.option(
    "--size",
    type=click.Choice(["full", "quick", "tiny"]),
    default="full",
    show_default=True,
    help="quick: under two minutes; tiny: seconds, shows only that everything runs.",
)
@click.option("--part", "parts", multiple=True, help="Only this part; may be repeated.")
@click.option(
    "--folder",
    type=PATH,
    metavar="DIR",
    help="Where to put data while it runs [default: a temporary folder].",
)
def bench(
    name: str,
    as_json: bool,
    markdown: bool,
    quick: bool,
    size: Literal["full", "quick", "tiny"],
    parts: tuple[str, ...],
    folder: Path | None,
) -> None:
    """Measure medaug next to its peers.

    NAME is the store, the training steps, DDP, a GPU, the sweep, or the time to the first answer.
    """
    from medaug.bench import Options, find_bench
    from medaug.bench.table import as_markdown, as_text

    result = find_bench(name)(Options("quick" if quick else size, parts, folder))
    if parts and not result.figures:
        raise UserError(
            f"--part {parts[0]}: bench {name} has no such part; docs/benchmarks.md names them"
        )
    show = as_markdown if markdown else as_text
    click.echo(result.to_json() if as_json else show(result))
