"""A study to start from, for a folder of scans: init; and what a study would read: check."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from medaug.cli.options import PATH
from medaug.errors import TrialsFailed, UserError

if TYPE_CHECKING:
    from medaug.spec.data import AcceptSpec


@click.command()
@click.argument("study")
@click.argument("folder", metavar="DIR", type=PATH)
@click.option(
    "--out",
    type=PATH,
    metavar="FILE",
    help="The YAML file to write; table and preview lie beside it [default: ./STUDY.yaml].",
)
@click.option(
    "--class", "column", metavar="COLUMN", help="The column of a table that is the class."
)
@click.option(
    "--positive", metavar="VALUE", help="Of that column, one value against all the others."
)
@click.option("--channels", metavar="A,B", help="The sequences to read, in this order.")
@click.option(
    "--patients",
    metavar="REGEX",
    help="Finds the patient in a scan's path: what its groups find, joined by -, or all of it. Or "
    "the name of a table's column that says who is on a scan.",
)
@click.option("--blocks", is_flag=True, help="Take blocks of consecutive numbers for patients.")
@click.option(
    "--accept",
    multiple=True,
    metavar="KEY",
    help="As data.accept: near_ids, similar_ids, missing, copies, lost=0.5 …",
)
def init(
    study: str,
    folder: Path,
    out: Path | None,
    column: str | None,
    positive: str | None,
    channels: str | None,
    patients: str | None,
    blocks: bool,
    accept: tuple[str, ...],
) -> None:
    """Look at the scans in DIR and write a study for them.

    Says what is there, and writes STUDY.csv (one line a scan), STUDY.yaml (a commented study of
    them) and STUDY.html (a preview: pictures, outlines, and all that was left out).
    """
    from medaug.cli.display import make_display
    from medaug.cli.options import load
    from medaug.data.importers import Options
    from medaug.init import first_look, study_text, write_table
    from medaug.preview import preview

    out = out or Path(f"{study}.yaml")
    table, page = out.with_suffix(".csv"), out.with_suffix(".html")
    for path in (out, table, page):
        if path.exists():
            raise UserError(f"{path}: exists; delete it, or give another --out")
    options = Options(
        class_column=column,
        positive=positive,
        channels=tuple(channels.split(",")) if channels else (),
        patients=_expression(patients),
        blocks=blocks,
    )
    with make_display().progress("reading scans") as progress:
        look = first_look(folder, options, accept=_accepted(accept), progress=progress)
    click.echo("\n".join(look.lines))
    written = []
    try:
        written.append(table)
        write_table(look, table)
        written.append(out)
        out.write_text(study_text(study, look, table), encoding="utf-8")
        load(out, None, (), None, None)  # a name that is none is the user's
        written.append(page)
        page.write_text(preview(study, look), encoding="utf-8")
    except UserError:
        for path in written:
            path.unlink(missing_ok=True)
        raise
    click.echo(f"wrote {table}, {out} and {page}; look at the page, read the table, then:")
    click.echo(f"  medaug run {out} --quick   # a first look in minutes")
    click.echo(f"  medaug plan {out}          # what all of it takes")
    click.echo(f"  medaug run {out}")


@click.command()
@click.argument("file", metavar="FILE", type=PATH)
def check(file: Path) -> None:
    """Read every scan of a table or study, and say what run would.

    FILE is a table (NAME.csv) or a study (NAME.yaml); of a table whose study lies beside it, that
    study's classes and settings count. Exits with 4 where scans cannot be used.
    """
    from medaug.cli.display import make_display
    from medaug.cli.options import load
    from medaug.data.splits import make_splits
    from medaug.init import check_table, data_of_table

    beside = file.with_suffix(".yaml")
    study = None
    if file.suffix.lower() not in (".csv", ".tsv"):
        study = load(file, None, (), None, None)
    elif beside.exists():
        study = load(beside, None, (f"data.table={file.absolute()}",), None, None)
    data = study.data if study else data_of_table(file)
    with make_display().progress("reading scans") as progress:
        lines, found = check_table(data, progress)
    click.echo("\n".join(lines))
    if study is not None:
        from medaug.data.cohort import units_and_labels

        scans = [sight.scan for sight in found.sights]
        make_splits(*units_and_labels(scans, study.split.unit), study.split, data.classes)
        click.echo(f"{file}: run can split these patients as {study.name} says")
    if found.rejected:
        raise TrialsFailed(f"{file}: {len(found.rejected)} scans cannot be used")


def _expression(text: str | None) -> re.Pattern[str] | None:
    try:
        return None if text is None else re.compile(text)
    except re.error as error:
        raise UserError(f"--patients: {error}; write a regular expression") from None


def _accepted(items: tuple[str, ...]) -> AcceptSpec:
    from medaug.spec.data import AcceptSpec
    from medaug.spec.validation import validated
    from medaug.spec.yaml_strict import parse_scalar

    given = {}
    for item in items:
        key, equals, value = item.partition("=")
        given[key] = parse_scalar(value, f"--accept {item}") if equals else True
    return validated(AcceptSpec, given, ("accept",), {("accept",): "--accept"})
