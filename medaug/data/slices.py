"""The slice store: every scan of a cohort as rows of raw intensities, with the split they live by.

Intensities are stored as they are on disk. What normalises them, the mean and standard deviation of
a fold's training patients, follows exactly from moments in the manifest, one of each patient.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medaug.data.address import split_address
from medaug.data.cohort import Cohort, Reject, Scan, units_and_labels
from medaug.data.colour import surveyed
from medaug.data.digests import Digests
from medaug.data.layouts import Progress, read_cohort
from medaug.data.nifti import Limits
from medaug.data.privacy import refuse_key_inside, site_pseudonymiser
from medaug.data.reader import Cut, files_of, read_rows
from medaug.data.sandbox import Outcome, Sandbox
from medaug.data.splits import draw_patients, make_splits, patient_labels, rename_patients
from medaug.data.survey import cut_by_planes
from medaug.data.table import STUDY
from medaug.data.tally import Tally
from medaug.errors import UserError
from medaug.spec.base import signature
from medaug.spec.data import AcceptSpec, DataSpec
from medaug.spec.study import SplitSpec
from medaug.store import Provenance, Store, StoreSchema, StoreWriter

RECIPE = 1
"""Raise when the same files give other rows: stores made by another recipe are not reused."""
NO_LABEL = -1
"""In the column of labels, of scans in the pool."""
_DECIDES_NO_ROW = {"blocks", "near_ids", "similar_ids", "copies", "lost"}
"""Keys of ``accept`` that let scans in or stop a study; the scans themselves are signed."""


@dataclass(frozen=True)
class IngestReport:
    """What an ingest made of a cohort; free of raw ids, so it may be logged."""

    path: Path
    patients: Mapping[str, int]
    """Per class; a patient with several counts in the highest."""
    slices: Mapping[str, int]
    rejects: tuple[tuple[str, str], ...]
    """(file under its patient's pseudonym, reason) of all that was left out; ``rejects.jsonl`` has
    the real names."""
    notes: tuple[str, ...]
    free_text: int
    """Free-text header fields and extensions of the images, all dropped."""


def ingest(
    spec: DataSpec,
    split: SplitSpec,
    out: Path,
    *,
    progress: Progress | None = None,
    cohort: Cohort | None = None,
    workers: int | None = None,
    config: str | None = None,
) -> IngestReport:
    """Read the cohort of ``spec`` into the slice store ``out``; return at once if it is there.

    Rows are float32 (C, S, S) in the order of patients, volumes and slices, masks uint8 (S, S) of 0
    and 1. Files are parsed by ``workers`` sandboxed processes (default: one per core, at most
    eight); memory does not grow with the cohort. Killed at any moment, the next call keeps the
    whole shards, and the store is the same to the byte.

    A cohort of the part ``pool`` or ``external`` has no split; in the pool, the label is -1.

    A bad file goes to ``rejects.jsonl`` beside the store (mode 0600), or with ``on_bad: strict``
    ends the ingest. ``config`` is the :func:`ingest_signature`, where the caller knows it.

    Raises:
        UserError: no store can be made of this cohort; nothing of it remains.
        EnvironmentFault: storage or the reader processes fail; the next call goes on.
    """
    if Store.exists(out):
        return _report_of(Store.open(out))
    refuse_key_inside(out.parent)
    cohort = read_cohort(spec, progress) if cohort is None else cohort
    cohort = prepared(cohort, spec, split, workers=workers)
    tally = Tally(spec, cohort, site_pseudonymiser(), split.unit)
    try:
        for reject in cohort.rejects:
            tally.reject(reject)
        # Before any reading, to fail early; and again at the end, without the bad files.
        tally.check_losses(of_all=cohort.scans)
        if cohort.part == STUDY:
            make_splits(*units_and_labels(cohort.scans, split.unit), split, cohort.classes)
        config = config or ingest_signature(cohort, spec, split)
        _write(spec, split, out, cohort, tally, progress, workers or reader_processes(), config)
    except UserError:
        _discard(out)
        raise
    finally:
        tally.write_rejects(out)
    return _report_of(Store.open(out))


def prepared(
    cohort: Cohort,
    spec: DataSpec,
    split: SplitSpec,
    digests: Digests | None = None,
    *,
    workers: int | None = None,
) -> Cohort:
    """The scans to read and their number of channels; of a prepared cohort, itself.

    Raises:
        UserError: scans have different numbers of files.
    """
    return surveyed(usable(cohort, spec, split), spec, workers or reader_processes(), digests)


def ingest_signature(
    cohort: Cohort, spec: DataSpec, split: SplitSpec, digests: Digests | None = None
) -> str:
    """Twelve hex digits that name the slice store of ``cohort``: the hash of every input file, its
    patient's pseudonym and label, and all of ``spec`` and ``split`` that decides rows or split."""
    digests = digests or Digests()
    cohort = prepared(cohort, spec, split, digests)
    pseudonym = site_pseudonymiser().pseudonym
    decisive = {"image_size", "slice_policy", "slice_step", "on_bad"}
    told = spec.model_dump(mode="json", include=decisive)
    accept = spec.accept.model_dump(mode="json", exclude=_DECIDES_NO_ROW)
    if accept != AcceptSpec().model_dump(mode="json", exclude=_DECIDES_NO_ROW):
        told["accept"] = accept  # what is taken anyway needs no mention
    if cohort.in_colour:
        told["colour"] = "keep"  # version 0.1 made everything grey and said nothing of it
    if cut_by_planes(cohort.scans, spec):
        told["planes"] = 1  # version 0.1 cut all volumes axially, whatever their pixels
    if spec.covariates:  # the manifest has them: other cells are another store
        told["covariates"] = [[pseudonym(scan.patient), scan.covariates] for scan in cohort.scans]
    files = [_files(scan) for scan in cohort.scans]
    found = iter(digests.all_of(file for each in files for file in each))
    hashes = [
        [next(found) for _ in each] + _places(s)
        for s, each in zip(cohort.scans, files, strict=True)
    ]
    part = {} if cohort.part == STUDY else {"part": cohort.part}
    return signature(
        {
            **part,
            "recipe": RECIPE,
            "classes": cohort.classes,
            "spec": told,
            "split": split.canonical(),
            "scans": [
                [pseudonym(scan.patient), scan.label, scan.index, scan.part, hashes]
                for scan, hashes in zip(cohort.scans, hashes, strict=True)
            ],
        }
    )


def _write(
    spec: DataSpec,
    split: SplitSpec,
    out: Path,
    cohort: Cohort,
    tally: Tally,
    progress: Progress | None,
    workers: int,
    config: str,
) -> None:
    """Read every scan in the sandbox and write its rows, in the cohort's order."""
    size = spec.image_size
    has_masks = cohort.scans[0].mask is not None
    assert cohort.channels is not None
    shape = (cohort.channels, size, size)
    schema = StoreSchema(shape, "float32", (size, size) if has_masks else None)
    provenance = Provenance("slices", config, (), (), synthetic=False)
    limits = Limits(strict=spec.on_bad == "strict", accept=spec.accept)
    cut = Cut(size, spec.slice_policy, spec.slice_step, limits, cohort.channels)
    tasks = [(scan.paths, scan.masks, cut) for scan in cohort.scans]
    splits: dict[str, Any] = {}  # known when all is read; the writer takes it when it closes
    with (
        Sandbox(read_rows, workers=workers) as sandbox,
        StoreWriter(
            out,
            schema,
            provenance=provenance,
            classes=cohort.classes,
            splits=splits if cohort.part == STUDY else None,
        ) as writer,
    ):
        done = writer.rows_done
        volumes = volume_numbers(cohort.scans)
        outcomes = zip(cohort.scans, volumes, sandbox.map(tasks), strict=True)
        for number, (scan, volume, outcome) in enumerate(outcomes, start=1):
            name = tally.names[scan.patient]
            if outcome.reason is not None:
                lost = Reject(scan.path, outcome.reason, scan.patient, label=scan.label)
                tally.reject(lost)
            else:
                tally.keep(scan, outcome.facts)
                done -= _write_rows(writer, scan, f"{name}-{volume}", name, outcome, done)
            if progress is not None:
                progress(number, len(tasks), name)
        tally.check_losses()
        if cohort.part == STUDY:
            raw = make_splits(*units_and_labels(tally.kept, split.unit), split, cohort.classes)
            splits.update(rename_patients(raw, tally.units).to_json())
        writer.extra.update(tally.extra())


def _write_rows(
    writer: StoreWriter, scan: Scan, volume: str, patient: str, outcome: Outcome, done: int
) -> int:
    """Append the rows of one scan but the first ``done``, which an earlier, interrupted ingest has
    written; return how many those are."""
    x_nCHW, *masks = outcome.arrays
    done = min(done, len(x_nCHW))
    if done < len(x_nCHW):
        stored = outcome.facts["slice_index"] if scan.index is None else [scan.index]
        mask_nHW = masks[0][done:] if masks else None
        writer.write(
            x_nCHW[done:],
            label=NO_LABEL if scan.label is None else scan.label,
            patient=patient,
            volume=volume,
            slice_index=stored[done:],
            tumour_pixels=None if mask_nHW is None else mask_nHW.sum(axis=(1, 2)),
            mask=mask_nHW,
        )
    return done


def volume_numbers(scans: Sequence[Scan]) -> Iterator[int]:
    """The number of each volume among its patient's; a patient's 2-D images are one series."""
    seen = Counter[str]()
    for scan in scans:
        yield seen[scan.patient]
        seen[scan.patient] += scan.index is None


def usable(cohort: Cohort, spec: DataSpec, split: SplitSpec) -> Cohort:
    """The scans to read: those with a label (and a mask, if any has one), of ``max_patients``."""
    if cohort.part != STUDY:
        return _of_part(cohort)
    masks = any(scan.mask for scan in cohort.scans)
    scans, rejects = [], list(cohort.rejects)
    for scan in cohort.scans:
        if scan.label is None:
            rejects.append(Reject(scan.path, "has no class; add it to the labels", scan.patient))
        elif masks and scan.mask is None:
            reason = "has no mask, others have; add it"
            rejects.append(Reject(scan.path, reason, scan.patient, label=scan.label))
        else:
            scans.append(scan)
    if not scans:
        first = f", first: {rejects[0].reason}" if rejects else ""
        raise UserError(f"data.root: no usable scan ({len(rejects)} left out{first})")
    if split.unit == "image" and any(scan.index is None for scan in scans):
        raise UserError("split.unit: image is for layouts of 2-D images; use patient for volumes")
    if spec.max_patients is not None:
        label_of = patient_labels(*units_and_labels(scans))
        drawn = draw_patients(label_of, spec.max_patients, split.seed)
        scans = [scan for scan in scans if scan.patient in drawn]
    return replace(cohort, scans=tuple(scans), rejects=tuple(rejects))


def _of_part(cohort: Cohort) -> Cohort:
    """All scans of a part that is not split; with masks where every one has one."""
    if not cohort.scans:
        raise UserError(f"data: no scan of the part {cohort.part}; write it into the column part")
    if all(scan.mask for scan in cohort.scans):
        return cohort
    scans = tuple(replace(scan, mask=None, more_masks=()) for scan in cohort.scans)
    return replace(cohort, scans=scans)


def _files(scan: Scan) -> list[Path]:
    """Every file that is read of a scan, its masks last."""
    return [file for path in (*scan.paths, *scan.masks) for file in files_of(path)]


def _places(scan: Scan) -> list[str]:
    """Which rows of an archive the scan is: other scans have the same file."""
    return [part for path in scan.paths if (part := split_address(path)[1]) is not None]


def _report_of(store: Store) -> IngestReport:
    report = store.manifest["extra"]["ingest"]
    rejects = tuple((name, reason) for name, reason in report["rejects"])
    return IngestReport(
        store.path,
        report["patients"],
        report["slices"],
        rejects,
        tuple(report["notes"]),
        report["free_text"],
    )


def _discard(out: Path) -> None:
    """Take back the shards of a store that cannot be finished."""
    for path in out.glob("part-*"):
        path.unlink()
    with contextlib.suppress(OSError):  # not there, or it holds what is not ours
        out.rmdir()


def reader_processes() -> int:
    """One per core of this process; more than eight would only wait for the one writer."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return min(8, len(affinity(0)) if affinity else os.cpu_count() or 1)
