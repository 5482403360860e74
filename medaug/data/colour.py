"""How many channels the images of a cohort have, before any of them is stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from medaug.data.address import is_two_dimensional, split_address
from medaug.data.cohort import Cohort
from medaug.data.digests import Digests
from medaug.data.nifti import Limits
from medaug.data.reader import in_colour
from medaug.data.sandbox import Sandbox
from medaug.errors import UserError
from medaug.spec.data import DataSpec

GREY, COLOUR = 1, 3


def surveyed(
    cohort: Cohort, spec: DataSpec, workers: int, digests: Digests | None = None
) -> Cohort:
    """The cohort with its number of channels: the files of a scan where there are several, else
    three if a single picture is in colour and ``spec.colour`` keeps it, else one.

    Most grey images say so in their header; of the others pixels are read until the first one is
    found that has colour; ``digests`` remember what was found.

    Raises:
        UserError: scans have different numbers of files.
    """
    if cohort.channels is not None or not cohort.scans:
        return cohort
    counts = sorted({len(scan.paths) for scan in cohort.scans})
    if len(counts) > 1:
        raise UserError(
            f"data: some scans have {counts[0]} sequences, others {counts[-1]}; bring the same "
            "ones of each, or name those that all have (data.channel)"
        )
    if counts[0] > 1:
        return replace(cohort, channels=counts[0])
    images = [scan.path for scan in cohort.scans if is_two_dimensional(scan.path)]
    if spec.colour == "grey" or not images:
        return replace(cohort, channels=GREY)

    def look() -> str:
        return str(_of_pictures(images, spec, workers))

    if digests is None:  # nobody remembers, so no file need be hashed
        return replace(cohort, channels=int(look()))
    places = [split_address(path) for path in images]
    question = f"channels of {[part for _, part in places]} with {spec.accept}"
    found = digests.recalled(question, dict.fromkeys(place for place, _ in places), look)
    return replace(cohort, channels=int(found))


def _of_pictures(images: Sequence[Path], spec: DataSpec, workers: int) -> int:
    # From all over the cohort, since colour may be rare and in one class only.
    step = max(1, int(len(images) ** 0.5))
    order = [path for start in range(step) for path in images[start::step]]
    with Sandbox(in_colour, workers=workers) as sandbox:
        limits = Limits(accept=spec.accept)
        for outcome in sandbox.map((path, limits) for path in order):
            if outcome.reason is None and outcome.facts["colour"]:
                return COLOUR
    return GREY
