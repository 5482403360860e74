"""The books of an ingest: what was kept, what was left out and why."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from medaug.data.cohort import Cohort, Reject, Scan, Unit, unit_of, units_and_labels
from medaug.data.privacy import Pseudonymiser
from medaug.data.splits import patient_labels
from medaug.errors import UserError
from medaug.spec.data import DataSpec
from medaug.storage.files import private_folder, write_whole

REJECTS = "rejects.jsonl"
_NAMES_NOBODY = re.compile(r"_[A-Za-z0-9]{1,8}\.(nii|hdr)(\.gz)?")
"""What may follow the patient's id in a file name and be repeated: the channel and the format."""


class Tally:
    """What an ingest learns besides the rows."""

    def __init__(
        self, spec: DataSpec, cohort: Cohort, site: Pseudonymiser, unit: Unit = "patient"
    ) -> None:
        self.rejects: list[tuple[str, Reject]] = []
        self.kept: list[Scan] = []
        self.names = {scan.patient: site.pseudonym(scan.patient) for scan in cohort.scans}
        assert len(set(self.names.values())) == len(self.names), "two patients, one pseudonym"
        self.units: dict[str, str] = {}
        """What the split divides, of all that is kept: raw name -> public name."""
        self._spec, self._cohort, self._site, self._unit = spec, cohort, site, unit
        self._slices = Counter[str]()
        self._warnings = Counter[str]()
        self._moments: dict[str, Any] = {}
        self._parts: dict[str, list[str]] = {}
        self._free_text = 0

    def reject(self, reject: Reject) -> None:
        """Note a file that is left out; with ``on_bad: strict`` raise UserError after that."""
        name = self._site.pseudonym(reject.patient or str(reject.path))
        end = reject.path.name.removeprefix(reject.patient or reject.path.name)
        shown = name + end if _NAMES_NOBODY.fullmatch(end) else name
        self.rejects.append((shown, reject))
        if self._spec.on_bad == "strict":
            raise UserError(f"{shown}: {reject.reason} (rejects.jsonl has its name)")

    def keep(self, scan: Scan, facts: Mapping[str, Any]) -> None:
        """Note what is known of a scan besides its slices."""
        self.kept.append(scan)
        if scan.label is not None:
            self._slices[self._cohort.classes[scan.label]] += len(facts["slice_index"])
        self._warnings.update(facts["warnings"])
        self._free_text += facts["free_text"]
        unit = unit_of(replace(scan, patient=self.names[scan.patient]), self._unit)
        self.units[unit_of(scan, self._unit)] = unit
        found = np.asarray(facts["moments"], np.float64)
        self._moments[unit] = (found + self._moments.get(unit, 0.0)).tolist()
        if scan.part and scan.part not in self._parts.setdefault(unit, []):
            self._parts[unit].append(scan.part)

    def check_losses(self, of_all: Sequence[Scan] = ()) -> None:
        """Raises UserError where a class has lost too many of its scans: the reason matters more
        than how many are left. ``of_all``: before reading, the scans that are still there."""
        lost = lost_classes(
            ((reject.label, reject.reason) for _, reject in self.rejects),
            (scan.label for scan in of_all or self.kept),
            self._cohort.classes,
            self._spec.accept.lost,
        )
        if lost is not None:
            raise UserError(
                f"data: {lost}; mend these files, or set data.accept.lost to go on without"
            )

    def extra(self) -> dict[str, Any]:
        """The part of the manifest that only an ingest can fill."""
        labelled = [scan for scan in self.kept if scan.label is not None]
        label_of = patient_labels(*units_and_labels(labelled))
        classes = self._cohort.classes
        warnings = (f"{text} ({n} files)" for text, n in sorted(self._warnings.items()))
        report = {
            "patients": {c: list(label_of.values()).count(i) for i, c in enumerate(classes)},
            "slices": {c: self._slices[c] for c in classes},
            "rejects": [[shown, reject.reason] for shown, reject in self.rejects],
            "notes": [*self._cohort.notes, *warnings],
            "free_text": self._free_text,
        }
        data = self._spec.model_dump(mode="json", exclude={"root", "table"})  # may name people
        return {
            **{"moments": self._moments, "parts": self._parts, "ingest": report, "data": data},
            "images": all(scan.index is not None for scan in self.kept),
            "colour": self._cohort.in_colour,
            "covariates": self._covariates(),
            "part": self._cohort.part,
        }

    def _covariates(self) -> dict[str, dict[str, str]]:
        """Pseudonym -> column -> cell, of the columns that the study names; where a patient's scans
        differ, the cells of all of them, joined by ``;``."""
        cells: dict[str, dict[str, list[str]]] = {}
        for scan in self.kept:
            for column, cell in scan.covariates:
                told = cells.setdefault(self.names[scan.patient], {}).setdefault(column, [])
                if cell and cell not in told:
                    told.append(cell)
        return {
            name: {column: ";".join(sorted(told)) for column, told in columns.items()}
            for name, columns in cells.items()
        }

    def write_rejects(self, store: Path) -> None:
        """Put one line per reject into ``rejects.jsonl`` beside ``store`` (mode 0600), the one file
        that holds raw names, in place of the lines of an earlier ingest of the same store."""
        path = store.with_name(REJECTS)
        before = path.read_text().splitlines() if path.exists() else []
        lines = [line for line in before if json.loads(line)["store"] != store.name]
        for shown, reject in self.rejects:
            raw = {"patient": reject.patient, "file": str(reject.path)}
            about = {"store": store.name, "shown_as": shown, "reason": reject.reason}
            lines.append(json.dumps(about | raw))
        if lines != before:
            private_folder(path.parent)
            write_whole(path, "".join(f"{line}\n" for line in lines).encode())


def lost_classes(
    rejected: Iterable[tuple[int | None, str]],
    kept: Iterable[int | None],
    classes: Sequence[str],
    most: float,
) -> str | None:
    """One line about the classes that lose at least the share ``most`` of their scans, or all:
    ``class ill: 12 of 12 scans refused: has an alpha channel``; None where none does.

    Args:
        rejected: class and reason of each scan that is refused.
        kept: class of each that is not.
    """
    reasons: dict[int, Counter[str]] = defaultdict(Counter)
    for label, reason in rejected:
        if label is not None:
            reasons[label][reason] += 1
    left = Counter(label for label in kept if label is not None)
    told = []
    for label, why in sorted(reasons.items()):
        lost, all_ = why.total(), why.total() + left[label]
        if lost == all_ or lost >= most * all_ > 0:
            reason, n = why.most_common(1)[0]
            also = "" if n == lost else f" ({n}; and {len(why) - 1} other reasons)"
            told.append(f"class {classes[label]}: {lost} of {all_} scans refused: {reason}{also}")
    return "; ".join(told) or None
