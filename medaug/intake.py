"""The first arrow of a study: scans to slices, and whether anybody is in them twice."""

from __future__ import annotations

from pathlib import Path

from medaug.audit.scan import SIDE, note_leakage, of_images, scan_slices
from medaug.data.digests import FILE as DIGESTS
from medaug.data.digests import Digests
from medaug.data.layouts import read_cohort
from medaug.data.slices import ingest, ingest_signature
from medaug.data.table import STUDY
from medaug.spec import DataSpec, SplitSpec, StudySpec
from medaug.storage.artifacts import Artifacts
from medaug.sweep.display import Display


def make_slices(study: StudySpec, display: Display) -> tuple[str, str | None]:
    """Names of the study's slice store and of the pre-training cohort's; made when missing."""
    slices = _ingest(study.data, study.split, study.storage, display, "reading scans")
    pretrain = study.segmenter.pretrain if study.segmenter else None
    if pretrain is None or pretrain.phantom is None:
        return slices, None
    cohort = study.data.model_copy(
        update={
            "layout": "phantom",
            "root": None,
            "table": None,
            "covariates": (),
            "phantom": pretrain.phantom,
            "classes": DataSpec().classes,
            "max_patients": None,
        }
    )
    split = SplitSpec(seed=study.split.seed)
    return slices, _ingest(cohort, split, study.storage, display, "making pre-training scans")


def make_part(study: StudySpec, part: str, display: Display) -> str | None:
    """Name of the slice store of the study's ``pool`` or ``external`` scans; None where there are
    none. It has no split, and in the pool no labels."""
    digests = Digests(Artifacts(study.storage).store_path(DIGESTS))
    if not read_cohort(study.data, part=part, digests=digests).scans:
        return None
    return _ingest(
        study.data, study.split, study.storage, display, f"reading scans: {part}", part=part
    )


def look_for_leaks(study: StudySpec, slices: str, folder: Path, display: Display) -> None:
    """Compare the slices of different patients before anything is trained; say what is found."""
    _, slices = larger_slices(study, slices, display)
    with display.progress("looking for copies between patients"):
        leakage = scan_slices(Artifacts(study.storage), slices)
    path = note_leakage(folder, leakage)
    advice = f"; see {path}; put them into one group" if leakage.leaks else ""
    display.note(f"{leakage.summary()}{advice}")


def larger_slices(study: StudySpec, slices: str, display: Display) -> tuple[int, str]:
    """Side in pixels and name of a store in which copies can be told: at 32 pixels all heads are
    alike, so images that the study makes so small are read again."""
    side = study.data.image_size
    if side >= SIDE or not of_images(Artifacts(study.storage).open_store(slices)):
        return side, slices
    data = study.data.model_copy(update={"image_size": SIDE})
    title = "reading them larger"
    return SIDE, _ingest(data, study.split, study.storage, display, title, tell=False)


def _ingest(
    data: DataSpec,
    split: SplitSpec,
    storage: Path,
    display: Display,
    title: str,
    tell: bool = True,
    part: str = STUDY,
) -> str:
    artifacts = Artifacts(storage)
    digests = Digests(artifacts.store_path(DIGESTS))
    with display.progress(title) as progress:
        cohort = read_cohort(data, progress, part=part, digests=digests)
        config = ingest_signature(cohort, data, split, digests)
        digests.save()
        name = f"slices-{config}"
        artifacts.fetch_store(name)  # another machine may have made it
        path = artifacts.store_path(name)
        report = ingest(data, split, path, progress=progress, cohort=cohort, config=config)
        artifacts.share_store(name)
    if tell:
        display.note_ingest(report)
    return name
