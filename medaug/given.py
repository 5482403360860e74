"""Rows that another tool has made, or its generator makes here, come into a study: checked, and
stored beside its slices.

They are read by the readers of the study's own scans, once for each folder, and named by their
content, so a study whose folder has changed makes its rows again. What a bundle makes is drawn by a
wave of trials before. Copies of patients who are scored end the study before anything is trained.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from medaug.arms.monai_bundle import Bundle
from medaug.audit.given import copied_images, held_out_rows, of_pictures, unlike_in_brightness
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
from medaug.experiment import output_name
from medaug.experiment.draw import publish_bundle
from medaug.intake import larger_slices
from medaug.models.unet import tap_shape
from medaug.plan.disk import bytes_to_write
from medaug.plan.draws import draw_trial, places_of, reading_arms
from medaug.plan.sizes import Given, Size
from medaug.plan.trials import rows_to_make
from medaug.plan.variants import ArmVariant
from medaug.spec import DrawTrial, StudySpec, signature
from medaug.spec.folder import FolderSpec, MonaiBundleSpec
from medaug.spec.per_class import UNIFORM, most_to_draw, per_class_title
from medaug.storage.artifacts import Artifacts
from medaug.storage.json_files import read_json
from medaug.storage.probe import check_storage
from medaug.storage.trial_folder import write_json
from medaug.store import Provenance, Store, StoreSchema, StoreWriter
from medaug.sweep.display import Display
from medaug.sweep.events import Outcome
from medaug.sweep.runner import Sweep

RECIPE = 1
"""Raise when the same array gives another store."""
AUDIT = "given.json"
"""By store: how many of its images were compared with how many held-out ones."""
_Found = tuple[Path, Path | None]
"""Where rows lie, and their labels if these have a file of their own."""
_Blocks = Iterable[tuple[np.ndarray, np.ndarray]]
"""Rows with their labels, some at a time."""
BLOCK = 64
"""Rows that are brought to their size at a time."""


def bring_given(
    study: StudySpec, slices: str, folder: Path, display: Display, sweep: Sweep
) -> tuple[Given, list[Outcome]]:
    """Store what the study's arms ``folder`` read: name of the store by arm, fold, seed and size;
    and how the trials of ``sweep`` ended that had to draw it. Of one that failed there is no store.

    Raises:
        UserError: something is missing, unreadable or too little; a tool that was trained on the
            study has no set of its own for each fold; or copies of held-out patients are in it.
        EnvironmentFault: the cluster or the storage cannot take the trials.
        Interrupted: a signal came while they drew.
    """
    bringers = [_Bringer(study, slices, folder, display, v) for v in reading_arms(study)]
    drawings = [drawing for bringer in bringers for drawing in bringer.drawings()]
    given: dict[tuple[str, int, int, Size], str] = {}
    for bringer in bringers:
        if not bringer.draws:  # what is quickly refused comes before hours of drawing
            given |= bringer.bring()
    outcomes = _draw(drawings, study, sweep)
    for bringer in bringers:
        if bringer.draws:
            given |= bringer.bring()
    return given, outcomes


def _draw(
    drawings: Iterable[tuple[DrawTrial, Bundle]], study: StudySpec, sweep: Sweep
) -> list[Outcome]:
    artifacts = Artifacts(study.storage)
    todo = dict[str, DrawTrial]()
    lost = set[str]()
    for trial, bundle in drawings:
        todo.setdefault(trial.key, trial)
        if not artifacts.has_store(output_name(trial)):
            lost.add(trial.key)
            publish_bundle(trial, bundle, artifacts)
    if not todo:
        return []
    check_storage(study.storage, bytes_to_write(study, todo.values(), 0))
    return sweep.run([*todo.values()], again=lost)


def _check_lineage(arm: str, spec: FolderSpec, study: StudySpec) -> None:
    """What saw the training patients of all folds has seen everybody who is scored."""
    if spec.made_from != "study_train" or study.split.folds == 1:
        return
    _, place = next(places_of(spec, study))
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
    variant: ArmVariant
    known: dict[tuple[Path, int], str] = field(default_factory=dict)

    @property
    def arm(self) -> str:
        return self.variant.name

    @property
    def spec(self) -> FolderSpec:
        assert isinstance(self.variant.spec, FolderSpec)
        return self.variant.spec

    @cached_property
    def found(self) -> dict[_Found, list[tuple[int, int, Size]]]:
        """Where rows lie, and for which fold, seed and size."""
        _check_lineage(self.arm, self.spec, self.study)
        found: dict[_Found, list[tuple[int, int, Size]]] = {}
        for place, named in places_of(self.spec, self.study):
            found.setdefault(place_of(self.spec, self.arm, named), []).append(place)
        return found

    @property
    def draws(self) -> bool:
        """Whether the rows are still to be made."""
        return isinstance(self.spec, MonaiBundleSpec)

    def bring(self) -> dict[tuple[str, int, int, Size], str]:
        """Store and check all of it; of a draw that has failed, its name alone is given.

        Raises:
            UserError: it is unreadable, too little, or has copies of held-out patients in it.
        """
        signed = self.spec.signature()
        given: dict[tuple[str, int, int, Size], str] = {}
        for found, places in self.found.items():
            given |= {(signed, *place): self.store(*found) for place in places}
        for found, places in self.found.items():
            if self.artifacts.has_store(self.store(*found)):
                self.check_enough(found)
                self.audit(found, sorted({fold for fold, _, _ in places}))
        return given

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
        if self.draws:
            return self._store_drawn(path, side)
        if is_array(path):
            return self._store_array(path, labels, side)
        return self._store_images(path, side, progress)

    def check_enough(self, found: _Found) -> None:
        """Raises UserError where a class has fewer rows than the longest ratio takes."""
        rows, classes = self.artifacts.open_store(self.store(*found)), self.study.data.classes
        n, drawn = max(self.study.sweep.n_synthetic), rows_to_make(self.study, self.variant)
        ways = self.variant.ways(self.study)
        way = max(ways, key=lambda way: most_to_draw(way, n, classes))
        for label, name in enumerate(classes):
            have, wanted = int((rows.labels == label).sum()), len(range(label, drawn, len(classes)))
            if have < wanted:
                how = "" if way == UNIFORM else f" with per_class {per_class_title(way)}"
                raise self._fault(
                    "path",
                    f"{have} rows of class {name}, and sweep.n_synthetic = {n}{how} takes {wanted}"
                    "; make more, or shorten that axis",
                )

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
        unlike = unlike_in_brightness(rows, held_out) if of_images(self.real) else ""
        if unlike and self.spec.intensity is None:
            scale = f"arms.{self.arm}.intensity: [black, white]"
            self.display.note(f"arm {self.arm}: {unlike}; if their scale is another, give {scale}")
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
        self._check_intensity(flat=cohort.scans[0].index is not None)
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
        parts = ((x[part], label[part]) for part in _parts(len(x)))
        self._write(name, x.shape[1:], parts, side)
        return name

    @cached_property
    def _drawings(self) -> dict[Path, tuple[DrawTrial, Bundle]]:
        paths = dict.fromkeys(path for path, _ in self.found)
        if not self.draws:
            return {}
        self._check_intensity(flat=True)
        return {path: draw_trial(self.study, self.variant, path, self._channels) for path in paths}

    def drawings(self) -> Iterator[tuple[DrawTrial, Bundle]]:
        """What has to be drawn, or has been. In a run made before a trial drew it, it may be here
        already, and nobody asks for it.

        Raises:
            UserError: a bundle is none, or does not suit the study.
        """
        seen: dict[str, Any] = read_json(self.folder / AUDIT) or {}
        for path, (trial, bundle) in self._drawings.items():
            name = self._drawn_name(path, self.study.data.image_size)
            there = self.artifacts.has_store(name) and name in seen
            if not there or self.artifacts.has_store(output_name(trial)):
                yield trial, bundle

    def _drawn_name(self, path: Path, side: int) -> str:
        trial, bundle = self._drawings[path]
        about = {"recipe": RECIPE, "bundle": bundle.key, "classes": trial.classes, "n": trial.n}
        about |= {"numbers": trial.numbers, "steps": trial.steps, "own": trial.side}
        return f"given-{signature({**about, 'output': trial.output, 'side': side})}"

    def _store_drawn(self, path: Path, side: int) -> str:
        """What has been drawn, at ``side`` pixels; only its name where that has failed."""
        name, drawn = self._drawn_name(path, side), output_name(self._drawings[path][0])
        if not self.artifacts.fetch_store(name) and self.artifacts.fetch_store(drawn):
            rows = self.artifacts.open_store(drawn)
            blocks = (rows.read(part) for part in _parts(len(rows)))
            pairs = ((block.x.numpy(), block.label.numpy()) for block in blocks)
            self._write(name, rows.schema.shape, pairs, side)
        return name

    def _write(self, name: str, shape: tuple[int, ...], blocks: _Blocks, side: int) -> None:
        """The store of rows x (m, *shape) float32 with their labels (m,)."""
        pictures = looks_like_images(shape, self._channels)
        if not pictures:
            self._check_shape(shape)
        with StoreWriter(
            self.artifacts.store_path(name),
            StoreSchema((self._channels, side, side) if pictures else shape, "float32"),
            provenance=Provenance("given", name.removeprefix("given-"), (), (), synthetic=True),
            classes=self.study.data.classes,
            extra={"pictures": pictures},
        ) as writer:
            done, begin = writer.rows_done, 0
            for x, label in blocks:
                rest = np.arange(max(0, done - begin), len(x))
                if len(rest):
                    x = as_images(x, side) if pictures else x
                    index, own = begin + rest, label[rest]
                    writer.write(x[rest], label=own, patient="", volume="", slice_index=index)
                begin += len(x)
        self.artifacts.share_store(name)

    def _check_intensity(self, *, flat: bool) -> None:
        if self.spec.intensity is None and flat and not of_images(self.real):
            raise self._fault(
                "intensity",
                "the study's scans are volumes, so say what black and white of an image stand for "
                "in their units, like [0, 1000]",
            )

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


def _parts(n: int) -> Iterator[slice]:
    """All of ``n`` rows, :data:`BLOCK` at a time."""
    return (slice(first, first + BLOCK) for first in range(0, n, BLOCK))
