"""What a finished trial came to, one type a stage: parsed when it is read."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import ConfigDict, Field

from medaug.spec.base import Spec
from medaug.spec.trial import Stage

Metrics = Mapping[str, float]


class TrialResult(Spec):
    """The base of all results; by itself what a rank says that leaves the result to rank 0."""

    # A loss that is infinite is a fact of the trial.
    model_config = ConfigDict(allow_inf_nan=True, ser_json_inf_nan="constants")

    stage: Stage | None = None
    status: Literal["done", "diverged"] = "done"
    scores: Metrics = Field(default_factory=dict)

    @property
    def made(self) -> tuple[str, ...]:
        """Names of the stores and models that the trial has published."""
        return ()


class DivergedResult(TrialResult):
    """A trial that came to nothing, which is a result of its arm and no fault."""

    status: Literal["diverged"] = "diverged"
    why: str


class StoreResult(TrialResult):
    """A store of ``rows`` rows of ``shape`` each; the base of two stages' results."""

    output: str
    rows: int
    shape: tuple[int, ...]

    @property
    def made(self) -> tuple[str, ...]:
        return (self.output,)


class DrawResult(StoreResult):
    """Images, all of a class next to each other."""

    stage: Literal["draw"] = "draw"


class SegmentResult(TrialResult):
    """A U-Net, at its best epoch (from 1); ``history`` has the metrics of each."""

    stage: Literal["segment"] = "segment"
    output: str
    best_epoch: int
    precision: str | None = None
    history: tuple[Metrics, ...] = ()

    @property
    def made(self) -> tuple[str, ...]:
        return (self.output,)


class ExtractResult(StoreResult):
    """Features."""

    stage: Literal["extract"] = "extract"


class GenerateResult(TrialResult):
    """A store of ``n`` rows and the model that made them."""

    stage: Literal["generate"] = "generate"
    output: str
    generator: str
    n: int
    precision: str | None = None
    collapsed: str | None = None
    """Why its rows count as collapsed: they hold too little of the real ones' variety."""
    extractor: str | None = None
    """What the rows' quality was measured on; None where it was not."""
    history: tuple[Metrics, ...] = ()

    @property
    def made(self) -> tuple[str, ...]:
        return self.output, self.generator


class PackedArray(Spec):
    """An array in a text file: its bytes, compressed, as base64."""

    dtype: str
    shape: tuple[int, ...]
    data: str

    @staticmethod
    def of(array: np.ndarray) -> PackedArray:
        """Little-endian, in C order."""
        whole = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
        data = base64.b64encode(zlib.compress(whole.tobytes(), 6)).decode()
        return PackedArray(dtype=whole.dtype.str, shape=whole.shape, data=data)

    def array(self) -> np.ndarray:
        """Raises ValueError when the bytes are not those of such an array."""
        try:
            raw = zlib.decompress(base64.b64decode(self.data, validate=True))
        except zlib.error as fault:
            raise ValueError(f"packed array: {fault}") from None
        return np.frombuffer(raw, self.dtype).reshape(self.shape)


class HeldOut(Spec):
    """What a classifier said of the held-out rows, in their order."""

    patients: tuple[str, ...]
    """Each once."""
    patient: PackedArray
    """(n,) index into ``patients``."""
    slice: PackedArray
    """(n,)"""
    label: PackedArray
    """(n,)"""
    probability: PackedArray
    """(n, K) float64"""

    @staticmethod
    def of(
        patient: ArrayLike, slice: ArrayLike, label: ArrayLike, probability: ArrayLike
    ) -> HeldOut:
        """Sequences of one length n, and probabilities (n, K)."""
        names, index = np.unique(np.asarray(patient, str), return_inverse=True)
        return HeldOut(
            patients=tuple(names.tolist()),
            patient=PackedArray.of(index.astype(np.int32)),
            slice=PackedArray.of(np.asarray(slice, np.int32)),
            label=PackedArray.of(np.asarray(label, np.int16)),
            probability=PackedArray.of(np.asarray(probability, np.float64)),
        )

    def patient_names(self) -> np.ndarray:
        """(n,) str."""
        return np.asarray(self.patients, str)[self.patient.array()]


class Seen(Spec):
    """So many of the scored patients and images."""

    patients: int
    images: int


class Exposure(Spec):
    """How many of the patients and images that are ``scored`` were seen before, and how."""

    scored: Seen
    trained_on: Seen
    """Among the real rows that the classifier trains on."""
    chose: Seen
    """Among the rows that chose epoch and threshold."""
    seen_by_generator: Seen
    """Among the rows that the generator of the added rows was fitted on, if they are synthetic."""


class ClassifyResult(TrialResult):
    """A classifier's scores and predictions on the fold's held-out patients."""

    stage: Literal["classify"] = "classify"
    threshold: float
    best_epoch: int
    precision: str | None = None
    history: tuple[Metrics, ...] = ()
    predictions: HeldOut
    steps: int
    """Budget of optimiser steps."""
    train_rows: int
    train_patients: int
    split: str
    """Hash of the split."""
    lineage: str
    exposure: Exposure | None = None

    @property
    def best_loss(self) -> float:
        """Validation loss of the best epoch."""
        return self.history[self.best_epoch - 1]["val/loss"]


RESULTS: Mapping[str, type[TrialResult]] = {
    "draw": DrawResult,
    "segment": SegmentResult,
    "extract": ExtractResult,
    "generate": GenerateResult,
    "classify": ClassifyResult,
}


def parse_result(data: Mapping[str, Any]) -> TrialResult:
    """The result that was written down as ``data``.

    Raises ValueError (pydantic's ValidationError is one), KeyError or TypeError when it is none.
    """
    data = _upgraded(data)
    if data.get("status") == "diverged":
        return DivergedResult.model_validate(data)
    kind = RESULTS.get(str(data.get("stage")))
    if kind is None:
        raise ValueError(f"no stage '{data.get('stage')}'")
    return kind.model_validate(data)


def _upgraded(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """A result of version 0.1, which did not name its stage, as today's."""
    if "stage" in data or data.get("status") == "diverged":
        return data
    if "threshold" not in data:
        named = {"generator": "generate", "shape": "extract"}
        return {**data, "stage": next((s for key, s in named.items() if key in data), "segment")}
    rows = data["predictions"]
    held_out = HeldOut.of(rows["patient"], rows["slice"], rows["label"], rows["probability"])
    return {**data, "stage": "classify", "predictions": held_out}
