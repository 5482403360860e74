"""From what a study names to a cohort: a table of scans, or a folder through its importer."""

from __future__ import annotations

import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from pathlib import Path

from medaug.data.address import is_two_dimensional, split_address
from medaug.data.cohort import Cohort, Reject, Scan, absent, folder_of
from medaug.data.copies import one_person
from medaug.data.digests import Digests
from medaug.data.files import BadFile, check_name
from medaug.data.importers import OWN, Found, Options, import_folder
from medaug.data.importers.base import count_reasons
from medaug.data.importers.places import about_places
from medaug.data.importers.table import about_patients
from medaug.data.importers.tree import HIDDEN
from medaug.data.privacy import pseudonym
from medaug.data.table import POOL, PUBLISHED, STUDY, TABLE, Row, ScanTable, check_rows
from medaug.errors import UserError
from medaug.spec.data import DataSpec
from medaug.spec.plugins import IMPORTERS as GROUP
from medaug.spec.plugins import Names
from medaug.storage.files import private_folder

Progress = Callable[[int, int, str], None]
"""(done, total, what): called after each unit of work."""

PHANTOM = "phantom"
LAYOUTS = Names((*OWN, PHANTOM), GROUP)
"""What ``data.layout`` may be."""
_WITH_CHANNELS = ("brats", "nnunet")


def read_cohort(
    spec: DataSpec,
    progress: Progress | None = None,
    *,
    part: str = STUDY,
    digests: Digests | None = None,
) -> Cohort:
    """The scans of ``spec``, of one part (study, pool or external); no image is opened yet.

    Raises:
        UserError: there is no such table, folder or importer; what they say contradicts itself; a
            scan has no class and ``spec.accept.missing`` is not set.
    """
    digests = digests or Digests()
    if spec.layout == PHANTOM:
        spec = _phantom(spec, progress)
    elif spec.layout not in LAYOUTS:
        raise UserError(f"data.layout: '{spec.layout}'; use one of {', '.join(sorted(LAYOUTS))}")
    if spec.layout == "table":
        return _of_table(spec, part, digests)
    found = import_folder(folder_of(spec), options_of(spec), spec.layout)
    rows, notes = checked(found, folder_of(spec), digests, spec)
    cohort = cohort_of(rows, folder_of(spec), spec, part, [*found.notes, *notes, *_left(found)])
    rejects = [replace(r, path=folder_of(spec) / r.path) for r in found.rejects]
    rejects += cohort.rejects
    _refuse_unlabelled(rejects, spec)
    lines = [absent(spec, f"{table}: {text}") for table, text in found.lines_left.items()]
    return replace(cohort, rejects=tuple(rejects), notes=(*cohort.notes, *lines))


def read_other(spec: DataSpec, part: str, digests: Digests | None = None) -> Cohort:
    """The whole of another table (``spec.table``) as one cohort, whatever parts it tells:
    ``external``, which keeps the scans that have a class, or ``pool``, of which no class is read.

    Raises:
        UserError: as :func:`read_cohort`.
    """
    path = table_of(spec)
    labelled = part != POOL
    table = ScanTable.read(path, similar_ids=spec.accept.similar_ids, labelled=labelled)
    if labelled:
        table = table.as_part(part)
    return _of_rows(table, path, spec, part, digests or Digests())


def check_source(spec: DataSpec) -> None:
    """Raises UserError where there is no such table or folder."""
    if spec.layout == "table":
        table_of(spec)
    elif spec.layout != PHANTOM:
        folder_of(spec)


def table_of(spec: DataSpec) -> Path:
    """The table that a study reads.

    Raises:
        UserError: there is none.
    """
    path = spec.table if spec.table is not None else folder_of(spec) / TABLE
    if not path.is_file():
        field = "data.root: holds no" if spec.table is None else "data.table: no file"
        raise UserError(f"{field} {path.name}; check data, or make one with medaug init")
    return path


def options_of(spec: DataSpec) -> Options:
    """What a study tells an importer."""
    channels: tuple[str, ...] = spec.sequences
    default = DataSpec.model_fields["channel"].default
    if spec.layout not in _WITH_CHANNELS and spec.channel == default:
        channels = ()
    if spec.layout == "brats" and not all(re.fullmatch(r"[A-Za-z0-9]+", c) for c in channels):
        raise UserError(f"data.channel: '{spec.channel}'; use the end of a file name, like flair")
    return Options(
        classes=tuple(spec.label_of),
        required=() if spec.grades else spec.classes,
        channels=channels,
        blocks=spec.accept.blocks,
        near_ids=spec.accept.near_ids,
        missing=spec.accept.missing,
    )


def checked(
    found: Found, root: Path, digests: Digests, spec: DataSpec
) -> tuple[list[Row], list[str]]:
    """The rows of an importer, held to the rules of a table; equal pictures have one patient.

    Raises:
        UserError: a rule is broken.
    """
    if not found.rows:
        return [], []
    name = TABLE if found.written else "data.root"
    anonymous = [replace(row, patient=None) if found.alone else row for row in found.rows]
    check_rows(name, anonymous, similar_ids=spec.accept.similar_ids)
    rows, notes = one_person(
        found.rows,
        root,
        digests,
        name=name,
        merge=not found.written,
        accept=spec.accept.copies,
    )
    if not found.written:
        notes += about_places(rows, found.notes)
    return rows, notes


def cohort_of(
    rows: Iterable[Row], base: Path, spec: DataSpec, part: str, notes: Iterable[str], name: str = ""
) -> Cohort:
    """The rows of one part as scans: by patient, else in their order; 2-D images are numbered
    within their patient.

    Raises:
        UserError: a row has a class that the study does not know.
    """
    rows = list(rows)
    scans: list[Scan] = []
    rejects: list[Reject] = []
    seen = Counter[str]()
    for row in sorted((r for r in rows if r.scored_in == part), key=lambda r: r.unit):
        paths = [base / file for file in row.files]
        try:
            for path in paths:
                check_name(split_address(path)[0])
        except BadFile as error:
            rejects.append(Reject(paths[0], str(error), row.unit))
            continue
        number = seen[row.unit] if row.slice is None else row.slice
        seen[row.unit] += 1
        masks = [base / file for file in row.masks]
        scans.append(
            Scan(
                patient=row.unit,
                path=paths[0],
                mask=masks[0] if masks else None,
                label=None if row.label is None else _label(row, spec, name),
                index=number if is_two_dimensional(paths[0]) else None,
                part=row.part if row.part in PUBLISHED else None,
                more=tuple(paths[1:]),
                more_masks=tuple(masks[1:]),
                covariates=tuple((c, _covariate(row, c)) for c in spec.covariates),
                line=row.line,
            )
        )
    notes = (*notes, *_other_parts(rows, part))
    return Cohort(tuple(scans), spec.classes, tuple(rejects), part, notes=notes)


def _other_parts(rows: Iterable[Row], part: str) -> list[str]:
    others = Counter(row.scored_in for row in rows if row.scored_in != part)
    return [f"{n} scans are of the part {other}, not of this one" for other, n in others.items()]


def _of_table(spec: DataSpec, part: str, digests: Digests) -> Cohort:
    path = table_of(spec)
    table = ScanTable.read(path, similar_ids=spec.accept.similar_ids)
    return _of_rows(table, path, spec, part, digests)


def _of_rows(table: ScanTable, path: Path, spec: DataSpec, part: str, digests: Digests) -> Cohort:
    _check_covariates(table, spec)
    base = path.parent
    inside = (spec.root or base).resolve()
    for row in table.rows:
        for file in (*row.files, *row.masks):
            place = split_address(base / file)[0]
            if os.path.isabs(file) or not place.resolve().is_relative_to(inside):
                raise UserError(
                    f"{table.name}:{row.line}: points outside of data.root; write paths relative "
                    "to the table, and set data.root to the folder that holds the files"
                )
    if any(".." in row.files[0] for row in table.rows):
        base = base.resolve()
        table = replace(table, rows=tuple(_plain(row, base) for row in table.rows))
    rows, notes = one_person(
        table.rows, base, digests, name=table.name, merge=False, accept=spec.accept.copies
    )
    notes = [*table.notes, *about_patients(table), *notes]
    return cohort_of(rows, base, spec, part, notes, table.name)


def _plain(row: Row, base: Path) -> Row:
    def plain(file: str) -> str:
        return os.path.normpath(base / file)

    return replace(
        row,
        files=tuple(map(plain, row.files)),
        masks=tuple(map(plain, row.masks)),
        patient=row.patient or row.files[0],
    )


def _check_covariates(table: ScanTable, spec: DataSpec) -> None:
    known = {name for row in table.rows for name in row.covariates} | {"site", "part"}
    if unknown := [name for name in spec.covariates if name not in known]:
        raise UserError(
            f"data.covariates: {table.name} has no column '{unknown[0]}'; it has "
            f"{', '.join(sorted(known))}"
        )


def _covariate(row: Row, column: str) -> str:
    if column in row.covariates:
        return row.covariates[column]
    return str(getattr(row, column, None) or "") if column in ("site", "part") else ""


def _label(row: Row, spec: DataSpec, name: str) -> int:
    assert row.label is not None
    if row.label in spec.label_of:
        return spec.label_of[row.label]
    shown = f"'{row.label}'" if re.fullmatch(r"[\w .+-]{1,24}", row.label) else "this value"
    where = f"{name}:{row.line}" if name else "data.classes"
    raise UserError(
        f"{where}: class {shown} is unknown; write one of {', '.join(spec.label_of)}, add it to "
        "data.classes, or map it in data.grades"
    )


def _left(found: Found) -> list[str]:
    """One line for each reason that files were left out for, but for what is nobody's scan."""
    told = {r.reason for r in found.rejects}
    return [
        f"{n} files left out: {reason}"
        for reason, n in count_reasons(found.left_out)
        if reason != HIDDEN and reason not in told and not reason.startswith(("no scan", "a table"))
    ]


def _refuse_unlabelled(rejects: Collection[Reject], spec: DataSpec) -> None:
    bare = [reject for reject in rejects if reject.unlabelled]
    if bare and not spec.accept.missing:
        names = {reject.patient or str(reject.path) for reject in bare}
        # A near miss explains more than the first of many.
        reason = next((r.reason for r in bare if "nearly" in r.reason), bare[0].reason)
        raise UserError(
            f"data.root: {len(bare)} scans without a label ({first_five(names)}), one {reason}; "
            "or set data.accept.missing to leave them out"
        )


def first_five(names: Collection[str]) -> str:
    return ", ".join(map(pseudonym, sorted(names)[:5])) + ", …" * (len(names) > 5)


def _phantom(spec: DataSpec, progress: Progress | None) -> DataSpec:
    """A simulated cohort, written once to ``~/.cache/medaug`` and then read as BraTS folders."""
    from medaug.data.phantom import CLASSES, RENDERER, write_cohort  # loads SciPy

    if spec.classes != CLASSES:
        raise UserError(f"data.classes: a phantom cohort has {', '.join(CLASSES)}")
    out = _cache() / f"phantom{RENDERER}-{spec.phantom.signature()}-{spec.image_size}"
    write_cohort(spec.phantom, spec.image_size, out, progress)
    return spec.model_copy(update={"root": out, "channel": "flair", "layout": "brats"})


def _cache() -> Path:
    """Where generated cohorts live; the temporary folder when there is no writable home."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "medaug"
    try:
        private_folder(cache)
    except OSError:
        cache = Path(tempfile.gettempdir(), f"medaug-{os.getuid()}")
        cache.mkdir(exist_ok=True, mode=0o700)
    return cache
