"""A study to start from, for a folder of scans: init."""

from __future__ import annotations

from pathlib import Path

import click

from medaug.errors import UserError


@click.command()
@click.argument("study")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The YAML file to write [default: ./STUDY.yaml].",
)
def init(study: str, folder: Path, out: Path | None) -> None:
    """Look at the scans in DIR and write a study for them.

    Says what is there, and writes it to a commented file as study STUDY.
    """
    from medaug.cli.display import make_display
    from medaug.cli.options import load
    from medaug.init import first_look

    out = out or Path(f"{study}.yaml")
    if out.exists():
        raise UserError(f"{out}: exists; delete it, or give another --out")
    with make_display().progress("reading headers") as progress:
        found = first_look(study, folder, progress)
    click.echo("\n".join(found.lines))
    out.write_text(found.text, encoding="utf-8")
    try:
        load(out, None, (), None, None)  # a name that is none is the user's
    except UserError:
        out.unlink()
        raise
    click.echo(f"wrote {out}; read it, then:")
    click.echo(f"  medaug run {out} --quick   # a first look in minutes")
    click.echo(f"  medaug plan {out}          # what all of it takes")
    click.echo(f"  medaug run {out}")
