"""Where a study's scans come from, and what is made of them: ``data`` in a ``jobs/*.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from medaug.spec.base import Positive, PositiveFloat, Spec


class PhantomSpec(Spec):
    """A simulated cohort in the BraTS layout (``medaug.data.phantom``)."""

    patients: Annotated[int, Field(ge=2)] = 101
    positive_fraction: Annotated[float, Field(gt=0, lt=1)] = 61 / 101
    d_prime: Annotated[float, Field(ge=0)] = 2.2
    """Distance of the class means of the latent, in its standard deviations. The best
    patient-level balanced accuracy that anything can reach is Phi(d_prime / 2); 0 is the null."""
    slices: tuple[Positive, Positive] = (36, 65)
    seed: int = 0


class AcceptSpec(Spec):
    """What an ingest takes although it is doubtful: each refusal names the key that lifts it."""

    nan: Literal["zero", "mean"] | None = None
    """Put this in the place of NaN and infinite voxels; ``mean`` is that of the volume's others."""
    volume: Annotated[int, Field(ge=0)] | None = None
    """Of a 4-D file take this volume, counted from 0."""
    orientation: Literal["sform", "qform"] | None = None
    """Which to believe where a NIfTI file has two orientations."""
    resample_mask: bool = False
    """Bring a mask on another grid to its image's by nearest neighbours."""
    missing: bool = False
    """Leave out scans without a label and labels without a scan."""
    cleaned_pixels: bool = False
    """DICOM that may show a name or a face in its pixels: you have looked, and it does not."""
    max_voxels: Positive = 2**28
    """Of one volume; 1 GiB as float32, a CT of 512 x 512 x 1024."""
    zoom_range_mm: tuple[PositiveFloat, PositiveFloat] = (0.05, 20.0)
    """Smallest and largest distance of two neighbouring voxels."""
    blocks: bool = False
    """Images that name no patient but are numbered patient by patient: take blocks of consecutive
    numbers for patients, and leave out the images between two blocks."""
    near_ids: bool = False
    """A table's ids that differ from the names of files or folders only by case, zeros or
    separators (``004`` for ``0004``) name these: you have looked."""
    similar_ids: bool = False
    """Ids that differ only by case, zeros or a prefix are different people: you have looked."""
    copies: bool = False
    """The same picture under two patients stays two scans: you have looked."""
    lost: Annotated[float, Field(ge=0, le=1)] = 0.1
    """A class that loses this share of its scans to errors stops the study."""


class DataSpec(Spec):
    table: Path | None = None
    """The table of scans (``medaug init`` writes one); its paths are relative to it."""
    layout: str = Field(
        default_factory=lambda fields: "phantom" if fields.get("table") is None else "table"
    )
    """An importer of ``medaug.data.importers`` that lists the scans of ``root``; ``table`` reads
    ``table``, or ``scans.csv`` in ``root``."""
    root: Path | None = None
    """The folder of scans (``--data DIR``); every layout but the phantom's reads one. Of a table:
    the folder that its files must lie in, without it the table's own."""
    classes: tuple[str, ...] = ("LGG", "HGG")
    """Class names; a label is an index into it, and the last class is the positive one."""
    channel: str = "flair"
    """The sequence that an importer takes; several, joined by ``;`` (``flair;t1;t1ce;t2``), become
    the channels of each image, in this order."""
    colour: Literal["keep", "grey"] = "keep"
    """``keep``: where some image is in colour, all have three channels. ``grey``: one, the luma."""
    image_size: Annotated[int, Field(ge=16, le=1024)] = 240
    slice_policy: Literal["all", "tumour_only"] = "all"
    slice_step: Positive = 1
    """Keep every n-th slice of a volume."""
    max_patients: Annotated[int, Field(ge=2)] | None = None
    """Take a class-stratified random part of the cohort (seeded by ``split.seed``)."""
    on_bad: Literal["reject", "strict"] = "reject"
    covariates: tuple[str, ...] = ()
    """Further columns of the table that are kept, under the pseudonyms: age, sex, scanner …"""
    grades: Mapping[str, str] = {}
    """What a label table may say besides class names -> class, like ``{"2": LGG, "4": HGG}``."""
    accept: AcceptSpec = AcceptSpec()
    phantom: PhantomSpec = PhantomSpec()

    @model_validator(mode="after")
    def _one_source(self) -> DataSpec:
        if self.table is not None and self.layout != "table":
            raise ValueError(f"give either table or layout {self.layout}, not both")
        return self

    @field_validator("classes")
    @classmethod
    def _classes_differ(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        if len(classes) < 2 or len(set(classes)) != len(classes):
            raise ValueError("wants at least two different class names")
        return classes

    @model_validator(mode="after")
    def _grades_are_classes(self) -> DataSpec:
        if unknown := sorted(set(self.grades.values()) - set(self.classes)):
            known = ", ".join(self.classes)
            raise ValueError(f"grades: '{unknown[0]}' is no class; write one of {known}")
        return self

    @property
    def sequences(self) -> tuple[str, ...]:
        """The parts of ``channel``."""
        return tuple(self.channel.split(";"))

    @property
    def label_of(self) -> dict[str, int]:
        """What a label table may say -> class index."""
        index = {name: label for label, name in enumerate(self.classes)}
        return index | {grade: index[name] for grade, name in self.grades.items()}
