"""Tables beside DICOM files: they name folders of people, paths below these, or PatientIDs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace

from medaug.data.canonical import tidy
from medaug.data.dicom_told import digest_of, told
from medaug.data.importers.base import Found, Options
from medaug.data.importers.naming import Sheet, near_form, sheets_of
from medaug.data.importers.near import near_miss, nearly_named
from medaug.data.importers.sheets import Said, said_by
from medaug.data.importers.tree import Tree
from medaug.errors import UserError

Key = tuple[str, ...]
"""The folders down to a patient; of a single image, down to its file; or a PatientID of a table."""
Lacking = dict[Key, tuple[str, bool]]
"""Why somebody has no class, and whether a table should have said it."""


def level_in_tables(tree: Tree, paths: Collection[tuple[str, ...]]) -> int | None:
    """The level of folders that a table lists, perhaps in another spelling: these are the
    patients'."""
    levels = range(max(map(len, paths), default=0))
    named = [{path[level] for path in paths if len(path) > level} for level in levels]
    for form in (None, _first_folder, near_form):
        for level, names in zip(levels, named, strict=True):
            if len(names) > 1 and sheets_of(tree, {n: [[n]] for n in names}, form=form):
                return level
    return None


def by_table(
    tree: Tree, keys: list[Key], options: Options, found: Found
) -> tuple[dict[Key, str], Said | None, Lacking]:
    """What tables say of patients and images by the names of their folders and files.

    Raises:
        UserError: nothing does.
    """
    aliases = {
        "/".join(key): [
            [key[-1], key[-1].rpartition("/")[2], key[-1].rpartition("/")[2].rpartition(".")[0]]
        ]
        for key in keys
    }
    problems: dict[str, str] = {}
    forms: tuple[Callable[[str], str] | None, ...] = (None, _first_folder)
    if options.near_ids:
        forms = (near_form,)
    tries = (sheets_of(tree, aliases, problems, form=form) for form in forms)
    sheets = next(filter(None, tries), [])
    said = said_by(sheets, options)
    if said is None:
        raise UserError(
            next(iter(problems.values()), None)
            or (
                sheets[0].without_class("patients")
                if sheets
                else nearly_named(tree, {key[-1] for key in keys})
            )
            or f"data.root: {len(keys)} DICOM patients, and nothing says their classes; put them "
            "into one folder for each class, or write name_mapping.csv with the columns "
            "subject_ID,Grade and a line for each"
        )
    _note(sheets, found)
    labels: dict[Key, str] = {}
    lacking: Lacking = {}
    for key in keys:
        if (label := said.class_of.get("/".join(key))) is not None:
            labels[key] = label
        elif (why := said.several.get("/".join(key))) is not None:
            lacking[key] = (why, False)
        else:
            lacking[key] = (near_miss(key[-1], sheets), True)
    return labels, said, lacking


@dataclass(frozen=True)
class ListedIds:
    """PatientIDs that a table lists."""

    said: Said
    """By the ids as the table writes them."""
    names: dict[str, str]
    """Digest of a PatientID -> how the table writes it."""
    table: str

    def name_of(self, digest: str) -> str:
        return self.names.get(digest, "(no line)")

    def of(self, keys: Iterable[Key]) -> tuple[dict[Key, str], Lacking]:
        """(class of each, why others have none)."""
        labels, lacking = {}, {}
        for key in keys:
            if key[-1] in self.said.class_of:
                labels[key] = self.said.class_of[key[-1]]
            elif key[-1] in self.said.several:
                lacking[key] = (self.said.several[key[-1]], False)
            else:
                lacking[key] = (f"its PatientID has no line in {self.table}; add one", True)
        return labels, lacking


def listed_ids(tree: Tree, options: Options, found: Found) -> ListedIds | None:
    """What tables say of PatientIDs; None where none lists at least half of them.

    Raises:
        UserError: one does, but no column is a class.
    """
    ids = {told(tree.root / name).patient_as_written for name in tree.dicom} - {""}
    if len(ids) < 2:
        return None

    def form(text: str) -> str:
        return text if text in ids else digest_of(text)

    sheets = sheets_of(tree, {one: [[one]] for one in ids}, form=form)
    if not sheets:
        return None
    said = said_by(sheets, options)
    if said is None:
        raise UserError(sheets[0].without_class("patients (by the PatientID of the headers)"))
    _note(sheets, found)
    names = {
        one: tidy(row[sheet.column])
        for sheet in reversed(sheets)
        for one, (_, row) in sheet.row_of.items()
    }
    table = sheets[0].table.name
    found.notes.append(
        f"{table} names patients by the PatientID of the headers: {len(names)} of {len(ids)} have "
        "a line"
    )
    return ListedIds(_renamed(said, names), names, table)


def _renamed(said: Said, names: dict[str, str]) -> Said:
    """``said`` by other names of the scans."""
    return replace(
        said,
        class_of={names[one]: cell for one, cell in said.class_of.items()},
        patient_of={names[one]: cell for one, cell in said.patient_of.items()},
        group_of={names[one]: cell for one, cell in said.group_of.items()},
        covariates={names[one]: cells for one, cells in said.covariates.items()},
        part_of={names[one]: cell for one, cell in said.part_of.items()},
        site_of={names[one]: cell for one, cell in said.site_of.items()},
        several={names[one]: why for one, why in said.several.items()},
    )


def _note(sheets: Iterable[Sheet], found: Found) -> None:
    for sheet in sheets:
        found.tables.append(sheet.table.name)
        found.absent(sheet.table.name, sheet.lines_left)


def _first_folder(text: str) -> str:
    """The outermost folder of a path: CBIS-DDSM's tables name files below folders of views."""
    return tidy(text).split("/")[0]
