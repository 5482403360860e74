"""Rows that another tool has made come into a study: checked, and stored beside its slices.

They are read by the readers of the study's own scans, once for each folder, and named by their
content, so a study whose folder has changed makes its rows again. Copies of patients who are scored
end the study before anything is trained.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medaug.arms.monai_bundle import draw, read_bundle
from medaug.audit.given import copied_images, held_out_rows, of_pictures
from medaug.audit.scan import of_images
from medaug.data.digests import FILE as DIGESTS
from medaug.data.digests import Digests
from medaug.data.files import BadFile
from medaug.data.given import (
    as_images,
    is_array,
    looks_like_images,
    one_set_a_fold,
    place_of,
    read_array,
    read_given,
)
from medaug.data.sandbox import Sandbox
from medaug.data.slices import ingest, ingest_signature, prepared
from medaug.errors import UserError
from medaug.intake import larger_slices
from medaug.models.unet import tap_shape
from medaug.plan.sizes import Given, Size, sizes_of
from medaug.plan.variants import ArmVariant, expand_arms
from medaug.spec import StudySpec, signature
from medaug.spec.folder import FolderSpec, MonaiBundleSpec
from medaug.spec.per_class import UNIFORM, PerClass, most_to_draw, per_class_title
from medaug.storage.artifacts import Artifacts
from medaug.storage.json_files import read_json
from medaug.storage.trial_folder import write_json
from medaug.store import Provenance, Store, StoreSchema, StoreWriter
from medaug.sweep.display import Display

RECIPE = 1
"""Raise when the same array gives another store."""
AUDIT = "given.json"
"""By store: how many of its images were compared with how many held-out ones."""
_Found = tuple[Path, Path | None]
"""Where rows lie, and their labels if these have a file of their own."""


def bring_given(study: StudySpec, slices: str, folder: Path, display: Display) -> Given:
    """Store what the study's arms ``folder`` read: name of the store by arm, fold, seed and size.

    Raises:
        UserError: something is missing, unreadable or too little; a tool that was trained on the
            study has no set of its own for each fold; or copies of held-out patients are in it.
    """
    given: dict[tuple[str, int, int, Size], str] = {}
    for variant in _reading(study):
        spec = variant.spec
        assert isinstance(spec, FolderSpec)
        _check_lineage(variant.name, spec, study)
        bringer = _Bringer(study, slices, folder, display, variant.name, spec)
        folds_of: dict[_Found, set[int]] = {}
        for (fold, seed, size), place in _places(spec, study):
            found = place_of(spec, variant.name, place)
            folds_of.setdefault(found, set()).add(fold)
            given[spec.signature(), fold, seed, size] = bringer.store(*found)
        for found, folds in folds_of.items():
            bringer.check_enough(found)
            bringer.audit(found, sorted(folds))
    return given


def _reading(study: StudySpec) -> list[ArmVariant]:
    for axis in study.sweep.space:
        arm, _, key = axis.partition(".")
        if isinstance(study.arms.get(arm), FolderSpec) and key != "real_rows":
            raise UserError(f"sweep.space: {axis} names rows on disk; list them in sweep.grid")
    return [variant for variant in expand_arms(study) if variant.arm.reads_given]


def _places(
    spec: FolderSpec, study: StudySpec
) -> Iterator[tuple[tuple[int, int, Size], dict[str, Any]]]:
    """Every (fold, seed, size), and what its placeholders stand for."""
    folds = range(study.split.folds)
    for fold, seed, size in itertools.product(folds, study.sweep.seeds, sizes_of(study)):
        rows = "all" if size[0] is None else size[0]
        yield (
            (fold, seed, size),
            {
                "fold": fold,
                "seed": seed,
                "train_rows": rows,
                "draw": size[1],
            },
        )


def _check_lineage(arm: str, spec: FolderSpec, study: StudySpec) -> None:
    """What saw the training patients of all folds has seen everybody who is scored."""
    if spec.made_from != "study_train" or study.split.folds == 1:
        return
    _, place = next(_places(spec, study))
    if not one_set_a_fold(spec, place):
        raise UserError(
            f"arms.{arm}.made_from: study_train wants rows of each fold's own generator, in "
            f"PATH/fold0 to PATH/fold{study.split.folds - 1} (or {{fold}} in path); one that saw "
            "all training patients saw those who are scored"
        )


@dataclass
class _Bringer:
    """Stores and checks what one arm reads."""

    study: StudySpec
    slices: str
    folder: Path
    display: Display
    arm: str
    spec: FolderSpec
    known: dict[tuple[Path, int], str] = field(default_factory=dict)
    known_images: dict[Path, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    """What was drawn of a bundle, as it came."""

    @cached_property
    def artifacts(self) -> Artifacts:
        return Artifacts(self.study.storage)

    @cached_property
    def real(self) -> Store:
        return self.artifacts.open_store(self.slices)

    @property
    def _channels(self) -> int:
        """Of the study's images."""
        return self.real.schema.shape[0]

    def store(self, path: Path, labels: Path | None, side: int | None = None) -> str:
        """The name of the store of what lies at ``path``, images at ``side`` pixels (None: as the
        study's); made when missing."""
        side = side or self.study.data.image_size
        if (path, side) not in self.known:
            with self.display.progress(f"reading the rows of arm {self.arm}") as progress:
                self.known[path, side] = self._store(path, labels, side, progress)
        return self.known[path, side]

    def _store(self, path: Path, labels: Path | None, side: int, progress: Any) -> str:
        if isinstance(self.spec, MonaiBundleSpec):
            return self._store_bundle(self.spec, path, side)
        if is_array(path):
            return self._store_array(path, labels, side)
        return self._store_images(path, side, progress)

    def check_enough(self, found: _Found) -> None:
        """Raises UserError where a class has fewer rows than the longest ratio takes."""
        rows, classes = self.artifacts.open_store(self.store(*found)), self.study.data.classes
        n, (drawn, way) = max(self.study.sweep.n_synthetic), self._most
        for label, name in enumerate(classes):
            have, wanted = int((rows.labels == label).sum()), len(range(label, drawn, len(classes)))
            if have < wanted:
                how = "" if way == UNIFORM else f" with per_class {per_class_title(way)}"
                raise self._fault(
                    "path",
                    f"{have} rows of class {name}, and sweep.n_synthetic = {n}{how} takes {wanted}"
                    "; make more, or shorten that axis",
                )

    @cached_property
    def _most(self) -> tuple[int, PerClass]:
        """How many rows the longest ratio takes, and the way of sharing out that takes them."""
        n, sweep = max(self.study.sweep.n_synthetic), self.study.sweep
        ways = sweep.per_class if self.spec.real_rows else (UNIFORM,)
        classes = self.study.data.classes
        return max(((most_to_draw(way, n, classes), way) for way in ways), key=itemgetter(0))

    def audit(self, found: _Found, folds: list[int]) -> None:
        """Compare images with those of all who choose or are scored in ``folds``, unless that was
        done before. Features are compared where there are real ones (stage ``generate``).

        Raises:
            UserError: copies of held-out patients are in them.
        """
        name = self.store(*found)
        known: dict[str, Any] = read_json(self.folder / AUDIT) or {}
        if name in known or not of_pictures(self.artifacts.open_store(name)):
            return
        side, slices = larger_slices(self.study, self.slices, self.display)
        rows = self.artifacts.open_store(self.store(*found, side))
        held_out = held_out_rows(self.artifacts.open_store(slices), folds)
        with self.display.progress(f"looking for scored patients among the rows of arm {self.arm}"):
            copied = copied_images(rows, held_out)
        if copied.refused:
            row = int(copied.pairs[0].b)
            who = f"{held_out.patients[row]}, slice {held_out.slice_index[row]}"
            raise self._fault(
                "path",
                f"{copied.images} of {len(rows)} images are copies of patients who are "
                f"scored (first: {who}); what made them has seen these patients, so bring rows "
                "made without them",
            )
        if copied.pairs:
            self.display.note(
                f"arm {self.arm}: {copied.images} of {len(rows)} images are near-copies of "
                f"held-out patients, and so are {copied.usual:.0%} of these among each other: "
                f"images of {side} pixels are too coarse to tell copies, so look at them"
            )
        known[name] = {
            **{"images": len(rows), "compared_with": len(held_out), "folds": folds},
            **{"near_copies": copied.images, "usual": copied.usual},
        }
        write_json(self.folder / AUDIT, known)

    def _store_images(self, path: Path, side: int, progress: Any) -> str:
        update = {"image_size": side, "slice_policy": "all", "slice_step": 1, "max_patients": None}
        data, split = self.study.data.model_copy(update=update), self.study.split
        cohort = read_given(path, self.arm, data)
        flat = cohort.scans[0].index is not None
        if self.spec.intensity is None and flat and not of_images(self.real):
            raise self._fault(
                "intensity",
                "the study's scans are volumes, so say what black and white of an image stand for "
                "in their units, like [0, 1000]",
            )
        digests = self._digests()
        cohort = prepared(cohort, data, split, digests)
        config = ingest_signature(cohort, data, split, digests)
        digests.save()
        name = f"given-{config}"
        self.artifacts.fetch_store(name)
        out = self.artifacts.store_path(name)
        try:
            ingest(data, split, out, progress=progress, cohort=cohort, config=config)
        except UserError as error:
            raise self._fault("path", str(error)) from None
        self.artifacts.share_store(name)
        return name

    def _store_array(self, path: Path, labels: Path | None, side: int) -> str:
        if self.spec.intensity is not None:
            raise self._fault(
                "intensity", "is about image files; write an array in the units of the scans"
            )
        classes, digests = self.study.data.classes, self._digests()
        try:
            hashes = [digests.of(file) for file in (path, labels) if file is not None]
        except BadFile as error:
            raise self._fault("path", str(error)) from None
        digests.save()
        about = {"recipe": RECIPE, "files": hashes, "classes": list(classes), "side": side}
        config = signature(about)
        name = f"given-{config}"
        if self.artifacts.fetch_store(name):
            return name
        with Sandbox(read_array, workers=1) as sandbox:
            (outcome,) = sandbox.map([(path, labels, classes)])
        if outcome.reason is not None:
            raise self._fault("path", f"{path.name}: {outcome.reason}")
        x, label = outcome.arrays[0], np.array(outcome.facts["labels"])
        return self._write(config, x, label, side)

    def _store_bundle(self, spec: MonaiBundleSpec, path: Path, side: int) -> str:
        """As many images as the longest ratio takes, drawn where their store is missing."""
        classes = self.study.data.classes
        numbers = spec.numbers or tuple(range(len(classes)))
        if len(numbers) != len(classes):
            raise self._fault(
                "numbers", f"names {len(numbers)} classes, and the study has {len(classes)}"
            )
        if spec.intensity is None and not of_images(self.real):
            raise self._fault(
                "intensity",
                "the study's scans are volumes, so say what black and white of an image stand for "
                "in their units, like [0, 1000]",
            )
        try:
            bundle = read_bundle(path)
            n = len(range(0, self._most[0], len(classes)))
            own = spec.side or bundle.side or self.study.data.image_size
            steps = spec.steps or bundle.steps
            about = {"recipe": RECIPE, "bundle": bundle.key, "classes": list(classes), "n": n}
            about |= {"numbers": numbers, "steps": steps, "own": own, "output": spec.output}
            config = signature({**about, "side": side})
            if self.artifacts.fetch_store(f"given-{config}"):
                return f"given-{config}"
            drawn = self.known_images.get(path)
            if drawn is None:
                device = "cuda" if torch.cuda.is_available() else "cpu"
                how: Any = {"steps": steps, "output": spec.output, "channels": self._channels}
                x, label = zip(*draw(bundle, n, numbers, own, device=device, **how), strict=True)
                drawn = self.known_images[path] = np.concatenate(x), np.concatenate(label)
        except UserError as error:
            raise self._fault("path", str(error)) from None
        return self._write(config, *drawn, side)

    def _write(self, config: str, x: np.ndarray, label: np.ndarray, side: int) -> str:
        """The store of rows x (n, …) float32 with their labels (n,)."""
        name = f"given-{config}"
        pictures = looks_like_images(x.shape[1:], self._channels)
        x = as_images(x, side) if pictures else x
        if not pictures:
            self._check_shape(x.shape[1:])
        with StoreWriter(
            self.artifacts.store_path(name),
            StoreSchema(x.shape[1:], "float32"),
            provenance=Provenance("given", config, (), (), synthetic=True),
            classes=self.study.data.classes,
            extra={"pictures": pictures},
        ) as writer:
            rest = np.arange(writer.rows_done, len(x))
            writer.write(x[rest], label=label[rest], patient="", volume="", slice_index=rest)
        self.artifacts.share_store(name)
        return name

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        """As far as it is known before anything is trained."""
        study, size = self.study, self.study.data.image_size
        if study.image_encoder is not None:
            return
        want: tuple[int, ...] = (self._channels, size, size)
        if study.features is not None and study.segmenter is not None:
            want = tap_shape(study.features.tap, study.segmenter.base, size)
        if math.prod(shape) != math.prod(want):
            raise self._fault(
                "path",
                f"rows are of shape {shape}, the study's of {want}; bring images, or features of "
                "the study's own encoder",
            )

    def _digests(self) -> Digests:
        return Digests(self.artifacts.store_path(DIGESTS))

    def _fault(self, key: str, what: str) -> UserError:
        return UserError(f"arms.{self.arm}.{key}: {what}")
