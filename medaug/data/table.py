"""A CSV table of scans."""

from __future__ import annotations

from medaug.data.cohort import Cohort, Scan, folder_of
from medaug.data.labels import Table, read_table
from medaug.data.listed import below, cohort_of, patients_in
from medaug.errors import UserError
from medaug.spec.study import DataSpec

TABLE = "scans.csv"
WANT = ("file", "class")


def scan_table(spec: DataSpec, progress: object = None) -> Cohort:
    """``DIR/scans.csv``: ``file`` (a volume or image, relative to ``DIR``), ``class``, perhaps
    ``mask`` and ``patient`` (or ``group``).

    Several rows of one patient may have different classes; a file has one.
    """
    root = folder_of(spec)
    found = read_table(root / TABLE, WANT)
    patient_of, note = patients_in(found, "file")
    label_of = _labels(found, spec)
    scans: dict[str, Scan] = {}
    for line, row in found.rows:
        where, file = f"{TABLE}:{line}", row["file"].strip()
        mask = row.get("mask", "").strip()
        scans[file] = Scan(
            patient_of.get(row["file"], file),
            below(root, file, where),
            below(root, mask, where) if mask else None,
            label_of[file],
        )
    return cohort_of(spec, scans.values(), (), [note])


def _labels(found: Table, spec: DataSpec) -> dict[str, int]:
    """Not :meth:`Table.labels`: a path is no patient id."""
    label_of: dict[str, int] = {}
    for line, row in found.rows:
        file, said = row["file"].strip(), row["class"].strip()
        if said not in spec.label_of:
            shown = f"'{said}'" if said.isalnum() and len(said) < 9 else "this value"
            raise UserError(
                f"{TABLE}:{line}: class {shown} is unknown; write one of {', '.join(spec.label_of)}"
            )
        if label_of.setdefault(file, spec.label_of[said]) != spec.label_of[said]:
            raise UserError(f"{TABLE}:{line}: this file has another class further up")
    return label_of
