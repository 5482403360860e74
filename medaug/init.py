"""``medaug init``: look at a folder of scans, say what is in it, write a study to start from."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from medaug.data.cohort import Cohort
from medaug.data.detect import Layout, detect
from medaug.data.layouts import Progress, read_cohort
from medaug.data.survey import ODD_SPACING, Survey, survey
from medaug.errors import UserError
from medaug.spec.study import AcceptSpec, DataSpec

FOLDS = 5
FEWEST_PATIENTS = 4
"""Of a class: two to score in turn, and two to train and to choose on."""


@dataclass(frozen=True)
class FirstLook:
    """What ``medaug init`` found, and the study that it proposes."""

    lines: tuple[str, ...]
    text: str
    """YAML."""


def first_look(name: str, root: Path, progress: Progress | None = None) -> FirstLook:
    """Look at the folder ``root``; no file in it is changed.

    Raises:
        UserError: its layout or its classes are not known, or a class has too few patients; says
            what to supply.
    """
    layout = detect(root)
    data = DataSpec(
        layout=layout.name,
        root=root.absolute(),
        classes=layout.classes,
        channel=layout.channel or DataSpec().channel,
        accept=AcceptSpec(missing=True),
    )
    cohort = read_cohort(data, progress)
    found = survey(cohort, data, progress)
    lines = report(layout, cohort, found)
    fewest = min(found.patients, key=lambda c: found.patients[c])
    if found.patients[fewest] < FEWEST_PATIENTS:
        raise UserError(
            f"{root}: class {fewest} has {found.patients[fewest]} usable patients, too few to "
            f"train on some and score others; bring at least {FEWEST_PATIENTS} of each class "
            f"({'; '.join(lines)})"
        )
    missing = any(reject.unlabelled for reject in cohort.rejects)
    return FirstLook(tuple(lines), write(name, data, layout, found, missing))


def report(layout: Layout, cohort: Cohort, found: Survey) -> list[str]:
    """What was found, for a terminal; free of patients' names."""
    lines = [
        f"layout {layout.name}: {found.scans} scans of {sum(found.patients.values())} patients"
    ]
    lines += [
        f"class {name}: {n} patients, {found.slices[name]} slices"
        for name, n in found.patients.items()
    ]
    if layout.channels:
        lines.append(f"channels: {', '.join(layout.channels)}; the study reads {layout.channel}")
    if found.with_mask:
        without = found.scans - found.with_mask
        lines.append(f"masks: {found.with_mask} scans have one, {without} have none")
    else:
        lines.append("masks: none, so the image itself is the feature")
    if found.spacing_mm is not None:
        x, y, z = found.spacing_mm
        odd = f"; {found.odd_spacing} volumes differ {ODD_SPACING:g}-fold or more"
        lines.append(
            f"spacing: {x:.3g} x {y:.3g} mm, {z:.3g} mm between slices (median)"
            f"{odd if found.odd_spacing else ''}"
        )
    reasons = Counter(reject.reason for reject in cohort.rejects)
    lines += [f"left out: {n} scans, {reason}" for reason, n in reasons.most_common()]
    lines += [f"left out: {reason}" for reason in found.unreadable]
    return [*lines, *layout.remarks, *cohort.notes]


def write(name: str, data: DataSpec, layout: Layout, found: Survey, missing: bool) -> str:
    """The study as commented YAML."""
    folds = min(FOLDS, min(found.patients.values()) // 2)
    about = ", ".join(f"{n} {c}" for c, n in found.patients.items())
    classes = json.dumps(list(data.classes), ensure_ascii=False)
    volumes = found.spacing_mm is not None
    lines = [
        f"# {name}: {about} patients, {sum(found.slices.values())} slices.",
        "# Written by `medaug init`; `medaug show` on this file prints every key and its default.",
        "# First `medaug run FILE --quick`: all of it in minutes, with scores that mean nothing.",
        "# Then `medaug plan FILE`. If that is too long: fewer arms, epochs, folds or pixels.",
        f"name: {json.dumps(name)}",
        "data:",
        f"  layout: {data.layout}",
        f"  root: {json.dumps(str(data.root), ensure_ascii=False)}",
        f"  classes: {classes}   # the last one counts as positive: check that it is yours",
    ]
    if layout.channel:
        lines.append(f"  channel: {json.dumps(layout.channel)}   # of {', '.join(layout.channels)}")
    size = 128 if found.with_mask else 32
    lines.append(f"  image_size: {size}   # pixels a side; cost grows with its square")
    if volumes:
        lines.append("  slice_step: 1   # 2 takes every other slice")
    if missing:
        lines.append("  accept: {missing: true}   # scans without a class are left out")
    lines += [
        "split:",
        f"  folds: {folds}   # by patient; scored on each patient once",
        "  test_fraction: 0   # 0.2 seals a fifth of the patients until `medaug unseal`",
    ]
    lines += _WITH_MASKS if found.with_mask == found.scans else _IMAGES
    lines += [
        "sweep:",
        f"  n_synthetic: [{_round(found)}]   # rows that an arm adds; give several to see a curve",
        "  seeds: [0, 1, 2]   # fewer than three cannot be ranked",
        "resources:",
        "  {ranks: 1, cpus_per_rank: 1, gpus_per_rank: 0,   # gpus_per_rank: 1 on GPUs",
        "   checkpoint_every_s: 30}   # a trial that is killed loses so much; 0 saves every epoch",
    ]
    return "\n".join(lines) + "\n"


_WITH_MASKS = [
    "segmenter:   # a U-Net learns the masks; one of its blocks is the feature",
    "  base: 16   # channels of its first block; the paper has 64",
    "  init: kaiming",
    "  epochs: 20",
    "  lr: 3.0e-4",
    "  pretrain: {phantom: {patients: 50, seed: 1}, epochs: 20, lr: 3.0e-4}   # simulated brains",
    "features: {tap: conv5}",
    "arms:   # none, duplicate and classical are what the others have to beat",
    "  none: {}",
    "  duplicate: {}",
    "  classical: {}",
    "  gaussian: {}",
    "  acgan: {epochs: 50}",
    "classifier: {epochs: 30}",
]
_IMAGES = [
    "arms:   # none, duplicate and classical are what the others have to beat",
    "  none: {}",
    "  duplicate: {}",
    "  classical:",
    "    policy: custom   # what leaves your images what they are",
    "    augment: {vflip: 0, elastic_alpha: 0, rotation_deg: 10, shift: 0.05, shear: 0}",
    "  smote: {}",
    "  dcgan: {networks: dcgan32, epochs: 500}",
    "classifier: {kind: resnet50, epochs: 30, lr: 1.0e-3, batch_size: 32}",
]


def _round(found: Survey) -> int:
    """About as many rows as there are real ones to train on, in a round number."""
    rows = sum(found.slices.values()) * 0.64
    return max(16, int(float(f"{rows:.1g}")))
