"""Synthetic rows of a finished generator for others: files, their table, a montage, and a card."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
import psutil
from PIL import Image

from medaug.arms import ARMS, FittedArm, GeneratedArm, load_arm
from medaug.audit.scan import of_images
from medaug.errors import UserError
from medaug.experiment import generator_name, output_name
from medaug.export.card import TERMS, card_of, check_free, checked_audit, said_of, write_about
from medaug.results.leaderboard import leaderboard_of
from medaug.results.records import TrialRecord
from medaug.results.report.pictures import TILES, made_tiles, strongest
from medaug.results.report.style import png
from medaug.results.rows import Leaderboard, Row
from medaug.storage.artifacts import Artifacts
from medaug.storage.manifest import sha256_of, write_manifest
from medaug.store import assembled
from medaug.tracking.generators import best_maker
from medaug.units import size

Form = Literal["png", "nifti", "npz"]
TABLE, MONTAGE, ARRAY = "samples.csv", "montage.png", "samples.npz"
COLUMNS = ("file", "row", "class", "configuration", "seed", "fold", "made_from", "sha256")
LICENCE = f"These rows were made from patients' data. They {TERMS}"
WHITE = {"uint16": 65535, "uint8": 255}


@dataclass(frozen=True)
class _Made:
    """Rows of one generator, classes in turn."""

    x: np.ndarray
    """(n, *shape) float32 in the units of the study's rows."""
    label: np.ndarray
    classes: tuple[str, ...]
    images: bool
    """Whether they are images, and not features."""
    colour: bool
    black: float
    white: float
    """What these stand for in a picture of 8 or 16 bit."""


def export_samples(
    folder: Path,
    out: Path,
    n: int,
    form: Form,
    *,
    arm: str | None = None,
    allow_near_copies: bool = False,
) -> Path:
    """Write ``n`` rows of the best-placed generator of the run in ``folder`` to the new folder
    ``out``, classes in turn: those of its own trial, and further ones where it can make them.

    ``png``: 16-bit grey or 8-bit colour, ``nifti``: float32, a file for each row in a folder for
    each class; ``npz``: ``x`` and ``label`` in one file. ``samples.csv`` says of each row its
    class, its seed and what it was made from; arm ``folder`` reads the first and the last. Beside
    them ``montage.png``, ``card.json`` and ``README.md``; no patient's pseudonym, and no real row.

    Raises:
        UserError: there is no such generator, it has made too few rows, its rows are no images of
            that format, ``out`` is in use, or it copies its training rows (or that was never
            audited) and ``allow_near_copies`` is not given.
        IntegrityError: the generator or its rows are damaged.
    """
    board = leaderboard_of(folder)
    row, trial = _best(folder, board, arm)
    audit = checked_audit(folder, row, trial, allow=allow_near_copies)
    check_free(out)
    artifacts = Artifacts(folder.parent)
    source = artifacts.verified_model(generator_name(trial.config))
    made = _made(artifacts, trial, source, n)
    _check_form(made, form, row)
    card = card_of(folder, row, trial, source) | {
        "licence": LICENCE,
        "near_copies": audit,
        "samples": {"rows": n, "format": form, "shape": list(made.x.shape[1:])}
        | ({"black": made.black, "white": made.white} if form == "png" else {}),
    }
    with assembled(out) as private:
        files = _WRITERS[form](private, made)
        _write_table(private, files, made, row, trial)
        if (figure := _montage(made, row.title)) is not None:
            (private / MONTAGE).write_bytes(png(figure))
        write_about(private, folder, board, card, _readme(card, made))
        write_manifest(private)
    return out


def _best(folder: Path, board: Leaderboard, arm: str | None) -> tuple[Row, TrialRecord]:
    """The best-placed row whose generator was fitted here."""
    if (best := best_maker(folder, board, arm, _is_ours)) is not None:
        return best
    have = sorted({row.arm for row in board.rows if _is_ours(row.kind)})
    which = "generator" if arm is None else f"generator of arm '{arm}'"
    raise UserError(
        f"{folder.name}: no finished {which} that was fitted here"
        + (f"; it has {', '.join(have)}" if have else "")
    )


def _is_ours(kind: str) -> bool:
    arm = ARMS.get(kind)
    return (
        arm is not None and issubclass(arm, GeneratedArm) and arm.synthetic and not arm.reads_given
    )


def _made(artifacts: Artifacts, trial: TrialRecord, source: Path, n: int) -> _Made:
    """The first n rows of the trial's generator."""
    config, arm = trial.generate, load_arm(source)
    features = artifacts.open_store(config.features)
    pictures = artifacts.open_store(config.slices) if config.slices else features
    images = features.provenance.encoder is None
    if isinstance(arm, FittedArm) and arm.portable:
        # The arm's own rows: where an encoder makes features of its images, the images.
        images = images or arm.needs_images or (arm.makes_images and config.encoder is not None)
        _check_memory(n, arm.shape)
        label = np.arange(n) % arm.n_classes
        x = np.empty((n, *arm.shape), np.float32)
        for k in range(arm.n_classes):
            x[label == k] = arm.draw(int((label == k).sum()), k, config.seed)
    else:
        store = artifacts.open_store(output_name(config))
        if len(store) < n:
            raise UserError(
                f"--samples {n}: {config.arm} has made {len(store)} rows and makes no more without "
                "its training data; ask for fewer, or export another --arm"
            )
        batch = store.read(slice(0, n))
        x, label = batch.x.float().numpy(), store.labels[:n]
    black, white = 0.0, 1.0
    if not of_images(pictures):  # volumes have units of their own
        black, white = float(x.min(initial=0.0)), float(x.max(initial=0.0))
    colour = bool(pictures.manifest["extra"].get("colour"))
    return _Made(x, label, features.classes, images, colour, black, white)


def _check_memory(n: int, shape: Sequence[int]) -> None:
    """The rows, those of one class as they are drawn, and what a file is written from."""
    needed, free = 3 * 4 * n * math.prod(shape), psutil.virtual_memory().available
    if needed > free:
        raise UserError(
            f"--samples {n}: takes {size(needed)} of memory, {size(free)} are free; ask for fewer"
        )


def _check_form(made: _Made, form: Form, row: Row) -> None:
    if form != "npz" and not made.images:
        raise UserError(f"--format {form}: the rows of {row.title} are no images; use npz")
    channels = made.x.shape[1]
    if form == "png" and channels != (3 if made.colour else 1):
        raise UserError(
            f"--format png: the images of {row.title} have {channels} channels; use nifti or npz"
        )


def _write_pngs(folder: Path, made: _Made) -> list[str]:
    kind = "uint8" if made.colour else "uint16"
    span = max(made.white - made.black, 1e-12)

    def write(path: Path, x_CHW: np.ndarray) -> None:
        shown = ((x_CHW - made.black) / span).clip(0, 1) * WHITE[kind]
        pixels = np.rint(shown).astype(kind)
        Image.fromarray(pixels.transpose(1, 2, 0) if made.colour else pixels[0]).save(path)

    return _write_each(folder, made, "png", write)


def _write_niftis(folder: Path, made: _Made) -> list[str]:
    """Columns run to the left and rows to the back, as in the slices of a study; how far apart
    pixels are, nobody knows of an image that was brought to one size: 1 mm stands there."""
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])

    def write(path: Path, x_CHW: np.ndarray) -> None:
        x_XYZC = x_CHW.transpose(2, 1, 0)[:, :, None]
        volume = nib.Nifti1Image(x_XYZC[..., 0] if len(x_CHW) == 1 else x_XYZC, affine)
        nib.save(volume, path)

    return _write_each(folder, made, "nii.gz", write)


def _write_each(
    folder: Path, made: _Made, ending: str, write: Callable[[Path, np.ndarray], None]
) -> list[str]:
    """A file for each row in a folder for each class; their names."""
    folders = _folder_names(made.classes)
    files = []
    for number, (x, label) in enumerate(zip(made.x, made.label.tolist(), strict=True)):
        (folder / folders[label]).mkdir(mode=0o700, exist_ok=True)
        files.append(f"{folders[label]}/{number:06d}.{ending}")
        write(folder / files[-1], x)
    return files


def _folder_names(classes: tuple[str, ...]) -> list[str]:
    """The classes, or where these are no names of folders, the classes with their numbers."""
    plain = [re.sub(r"[^\w.-]", "_", name).lstrip(".") for name in classes]
    if all(plain) and len(set(map(str.casefold, plain))) == len(plain):
        return plain
    return [f"{label}_{name}" for label, name in enumerate(plain)]


def _write_npz(folder: Path, made: _Made) -> list[str]:
    label = np.array([made.classes[k] for k in made.label])
    np.savez_compressed(folder / ARRAY, x=made.x, label=label)
    return [ARRAY] * len(made.x)


_WRITERS: Mapping[Form, Callable[[Path, _Made], list[str]]] = {
    "png": _write_pngs,
    "nifti": _write_niftis,
    "npz": _write_npz,
}


def _write_table(folder: Path, files: list[str], made: _Made, row: Row, trial: TrialRecord) -> None:
    hashes = {name: sha256_of(folder / name) for name in dict.fromkeys(files)}
    with (folder / TABLE).open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for number, (name, label) in enumerate(zip(files, made.label.tolist(), strict=True)):
            about = (row.title, trial.config.seed, trial.config.fold, "study_train")
            table.writerow((name, number, made.classes[label], *about, hashes[name]))


def _montage(made: _Made, title: str) -> Any:
    """Some rows of each class; None where a row is a vector."""
    if made.x.ndim != 4 or min(made.x.shape[2:]) < 2:
        return None
    return made_tiles(dict(_tiles(made)), title, images=made.images)


def _tiles(made: _Made) -> Iterator[tuple[str, np.ndarray]]:
    for label, name in enumerate(made.classes):
        mine = made.x[made.label == label][:TILES]
        if not len(mine):
            continue
        if not made.images:  # of features, channels of the first row
            yield name, mine[0][strongest(mine[0])]
        else:
            yield name, mine.transpose(0, 2, 3, 1) if made.colour else mine[:, 0]


def _readme(card: Mapping[str, Any], made: _Made) -> str:
    samples = card["samples"]
    kind = "images" if made.images else f"features ({card['encoder']})"
    shape = " x ".join(map(str, samples["shape"]))
    scale = ""
    if samples["format"] == "png":
        scale = f" Black is {made.black:g} and white {made.white:g} in the units of the scans."
    return f"""# {samples["rows"]} rows of {card["configuration"]} of {card["run"]}

Synthetic {kind}, {shape}, of the classes {", ".join(card["classes"])}; no real patient is among
them. `{TABLE}` has a line for each: file, class, seed, and that it was made from training patients
of fold {card["fold"]} only, so a study that scores these must not be trained on it.{scale}

{said_of(card)}"""
