"""The keys of arm ``folder``: rows that any other tool has made."""

from __future__ import annotations

import string
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from medaug.spec.base import Spec
from medaug.spec.study import ArmSpec

MONAI: Mapping[str, str] = {"monai": "monai", "einops": "monai"}
"""What an arm on MONAI's networks needs: package -> medaug's extra that brings it."""
PLACEHOLDERS = ("fold", "seed", "train_rows", "draw")
OF_A_PATH = ("folder", "monai_bundle")
"""Kinds whose path may stand alone: ``monai_bundle: PATH``."""
WHOLE = Path(".")
"""In the place of a path, where what lies there has been read and named by its hash."""


class PublicSource(Spec):
    """A generator that has seen other people's data only."""

    public: Annotated[str, Field(min_length=1, max_length=200)]
    """Of which data it was made: a name that others can look up."""


class FolderSpec(ArmSpec):
    """Rows on disk, made by a tool of the user's own.

    ``path`` is a folder with a folder of images for each class, a ``.csv`` with the columns
    ``file`` and ``class``, or an array of rows with labels: ``.npz`` (``x`` and ``label``),
    ``.npy`` (with ``labels``) or ``.arrow`` (columns ``x`` and ``label``).
    """

    kind: Literal["folder"] = "folder"
    path: Path
    """May hold ``{fold}``, ``{seed}``, ``{train_rows}`` and ``{draw}``; a folder that holds
    ``fold0``, ``fold1`` … has one set a fold, too."""
    labels: Path | None = None
    """Of a ``.npy``: the ``.npy`` or ``.txt`` of its labels, with the same placeholders; default:
    ``NAME_labels.npy`` beside it."""
    made_from: Literal["study_train", "unknown"] | PublicSource = "unknown"
    """What the tool was trained on: the training patients of the fold, named public data
    (``{public: NAME}``), or nobody knows. With ``unknown`` a row is ranked, but no gain is ever
    concluded of it."""
    intensity: tuple[float, float] | None = None
    """What black and white of an image file are in the units of the study's scans; needed where
    these are volumes. None: 0 and 1, as the study's own images are read."""

    @field_validator("path", "labels")
    @classmethod
    def _known_placeholders(cls, path: Path | None) -> Path | None:
        if path is not None:
            try:
                named = _fields(path)
            except ValueError:
                raise ValueError("has a brace without its partner; write {fold}") from None
            if unknown := [name for name in named if name not in PLACEHOLDERS]:
                known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
                raise ValueError(f"knows no {{{unknown[0]}}}; use {known}")
        return path

    @field_validator("intensity")
    @classmethod
    def _black_is_darker(cls, ends: tuple[float, float] | None) -> tuple[float, float] | None:
        if ends is not None and not ends[0] < ends[1]:
            raise ValueError("wants the value of black first, and a larger one for white")
        return ends

    @property
    def varies(self) -> frozenset[str]:
        """The placeholders of ``path``."""
        return frozenset(_fields(self.path))

    def places(self, place: Mapping[str, Any]) -> tuple[Path, Path | None]:
        """``path`` and ``labels`` with the placeholders filled in."""
        path = Path(str(self.path).format(**place))
        return path, None if self.labels is None else Path(str(self.labels).format(**place))

    def maker(self, train_rows: int | None = None, draw: int = 0) -> dict[str, Any]:
        """Without where the rows lie: their hash says what they are. A tool that was trained on all
        training patients knows more than a small training set holds."""
        body = super().maker(train_rows, draw) | {"path": str(WHOLE), "labels": None}
        apart = {"train_rows"} | ({"draw"} if draw else set())
        if self.made_from == "study_train" and train_rows is not None and not apart <= self.varies:
            body["made_from"] = "unknown"
        return body


class MonaiBundleSpec(FolderSpec):
    """A generator that another tool has trained, as a MONAI bundle: a folder with
    ``configs/inference.json`` (or ``.yaml``), ``configs/metadata.json`` and ``models/model.pt`` (or
    ``.safetensors``). Its rows are drawn once, by a trial before anything is trained."""

    kind: Literal["monai_bundle"] = "monai_bundle"  # type: ignore[assignment]
    numbers: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """What the bundle calls the classes, in the order of ``data.classes``; None: 0, 1, …"""
    side: Annotated[int, Field(ge=8, le=1024)] | None = None
    """Pixels a side that the network makes. None: ``image_size`` of the bundle, or the study's."""
    steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Of the sampler. None: ``num_inference_steps`` of the bundle, or 50."""
    output: tuple[float, float] = (-1.0, 1.0)
    """What the network calls black and white; what is beyond them is cut off."""

    @model_validator(mode="after")
    def _one_bundle(self) -> MonaiBundleSpec:
        if self.labels is not None:
            raise ValueError("labels is a key of arm folder; a bundle is told which class to make")
        if not self.output[0] < self.output[1]:
            raise ValueError("output wants the value of black first, and a larger one for white")
        return self

    @property
    def needs(self) -> Mapping[str, str]:
        return MONAI


def _fields(path: Path) -> list[str]:
    """Raises ValueError where a brace has no partner."""
    return [name for _, name, *_ in string.Formatter().parse(str(path)) if name is not None]
