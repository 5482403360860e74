"""The first arrow of a study: scans to slices, and whether anybody is in them twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from medaug.audit.leakage import leakage_of
from medaug.audit.scan import SIDE, copies_between, note_leakage, of_images, scan_slices
from medaug.data.cohort import Cohort
from medaug.data.colour import COLOUR, GREY
from medaug.data.digests import FILE as DIGESTS
from medaug.data.digests import Digests
from medaug.data.layouts import PHANTOM, read_cohort, read_other
from medaug.data.privacy import pseudonym
from medaug.data.slices import ingest, ingest_signature, prepared, usable
from medaug.data.table import EXTERNAL, POOL, STUDY, lines_of
from medaug.errors import UserError
from medaug.plan.variants import pool_arms
from medaug.results.report.facts import about_channels
from medaug.spec import DataSpec, SplitSpec, StudySpec
from medaug.storage.artifacts import Artifacts
from medaug.sweep.display import Display


def make_slices(study: StudySpec, display: Display) -> tuple[str, str | None]:
    """Names of the study's slice store and of the pre-training cohort's; made when missing."""
    slices = _ingest(study.data, study.split, study.storage, display, "reading scans")
    for line in about_channels(study, Artifacts(study.storage).open_store(slices)):
        display.note(line)
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


def look_at_external(study: StudySpec, slices: str, folder: Path, display: Display) -> StudySpec:
    """Read the study's part ``external``, if there is one, before hours of training: the study,
    whose networks are then kept to score it.

    Raises:
        UserError: its scans cannot be read, or some are copies of the study's.
    """
    if study.data.layout == PHANTOM:
        return study
    digests = Digests(Artifacts(study.storage).store_path(DIGESTS))
    if not read_cohort(study.data, part=EXTERNAL, digests=digests).scans:
        return study
    name, cohort = make_other(study, slices, study.data, EXTERNAL, display, whole=False)
    found = leakage_of(folder)
    assert found is not None, "copies within the study are looked for first"
    refuse_copies(study, found.store, name, study.data, cohort, display)
    kept = study.resources.model_copy(update={"keep_classifiers": True})
    return study.model_copy(update={"resources": kept})


def bring_pool(study: StudySpec, slices: str, folder: Path, display: Display) -> str | None:
    """The slice store of the study's part ``pool``; None where no arm looks at it.

    Raises:
        UserError: there are no such scans, they cannot be read, or they are of the study's
            patients, some of whom are scored.
    """
    if not (readers := pool_arms(study)):
        return None
    if study.data.layout == PHANTOM:
        raise UserError("arms: fit_on: pool wants scans of the part pool, and phantoms have none")
    name, cohort = make_other(study, slices, study.data, POOL, display, whole=False)
    artifacts = Artifacts(study.storage)
    ours, theirs = artifacts.open_store(slices), artifacts.open_store(name)
    if known := sorted({*ours.patients.tolist()} & {*theirs.patients.tolist()}):
        raise UserError(
            f"data: {len(known)} patients ({', '.join(known[:3])}{' …' * (len(known) > 3)}) are in "
            "the part pool and in the study, where they are scored; give the pool other patients"
        )
    features = study.image_encoder is not None  # which have no masks
    on_scans = [v.name for v in readers if v.arm.makes_images or not features]
    if on_scans and theirs.schema.mask_shape != ours.schema.mask_shape:
        raise UserError(
            f"arms.{on_scans[0]}: the study's scans and those of the part pool are not alike: only "
            "one of the two has masks; give both, or none, or take an arm on an encoder's features"
        )
    found = leakage_of(folder)
    assert found is not None, "copies within the study are looked for first"
    refuse_copies(study, found.store, name, study.data, cohort, display)
    n = len({*theirs.patients.tolist()})
    display.note(f"pool: {len(theirs):,} images of {n:,} patients, of whom no class is read")
    return name


def make_other(
    study: StudySpec, slices: str, data: DataSpec, part: str, display: Display, *, whole: bool
) -> tuple[str, Cohort]:
    """The slice store of scans that are not the study's own, and these scans: with ``whole`` the
    whole table of ``data`` as ``part``, else this part of it. Pictures are in colour where those of
    the study, the store ``slices``, are.

    Raises:
        UserError: there are no such scans.
    """
    digests = Digests(Artifacts(study.storage).store_path(DIGESTS))
    read = read_other if whole else read_cohort
    cohort = usable(read(data, part=part, digests=digests), data, study.split)
    channels = Artifacts(study.storage).open_store(slices).schema.shape[0]
    if channels in (GREY, COLOUR) and all(len(scan.paths) == 1 for scan in cohort.scans):
        cohort = replace(cohort, channels=channels)
    split, storage = study.split, study.storage
    name = _ingest(
        *(data, split, storage, display, "reading scans", part != POOL), part=part, cohort=cohort
    )
    return name, cohort


def refuse_copies(
    study: StudySpec, scanned: str, other: str, data: DataSpec, cohort: Cohort, display: Display
) -> None:
    """Compare another cohort with the study's slices (``scanned``: the store in which copies
    within the study were looked for; ``other``: that of ``cohort``).

    Raises:
        UserError: they have pictures in common, so a score on it would be on patients that are
            known; says how many.
    """
    artifacts = Artifacts(study.storage)
    ours, theirs = artifacts.open_store(scanned), artifacts.open_store(other)
    side = ours.schema.shape[-1]
    if side != theirs.schema.shape[-1]:  # small images are compared larger
        larger = data.model_copy(update={"image_size": side})
        part = cohort.part
        name = _ingest(
            *(larger, study.split, study.storage, display, "reading them larger", False),
            part=part,
            cohort=cohort,
        )
        theirs = artifacts.open_store(name)
    with display.progress("looking for copies of the study's patients"):
        found = copies_between(ours, theirs)
    if not found:
        return
    patients = sorted({image.patient for _, image in found})
    lines = lines_of(scan.line for scan in cohort.scans if pseudonym(scan.patient) in set(patients))
    raise UserError(
        f"data: {len(found)} images of {len(patients)} patients of the other cohort "
        f"({', '.join(patients[:3])}{' …' * (len(patients) > 3)}; {lines}) are copies of images in "
        "the study, which knows these patients; take them out"
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
    cohort: Cohort | None = None,
) -> str:
    artifacts = Artifacts(storage)
    digests = Digests(artifacts.store_path(DIGESTS))
    with display.progress(title) as progress:
        if cohort is None:
            cohort = read_cohort(data, progress, part=part, digests=digests)
        cohort = prepared(cohort, data, split, digests)
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
