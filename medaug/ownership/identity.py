"""Which study a run's folder holds, and which data: what must not change under one name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from medaug.errors import IntegrityError, UserError
from medaug.spec import StudySpec, build_study, signature
from medaug.spec.arms import ARM_CONFIGS
from medaug.spec.loader import NOT_OF_RESULTS
from medaug.storage.files import private_folder
from medaug.storage.run_folder import refresh_names, study_data
from medaug.storage.trial_folder import read_json, write_json


def free_folder(study: StudySpec) -> Path:
    """``<storage>/<name>``, which is new or holds this study; or another one that ended before its
    scans were read, like one with a mistake that has been corrected since.

    Raises:
        UserError: the folder holds another study; names the first key that differs.
    """
    folder = study.storage / study.name
    if _has_begun(folder):
        before = _decisive(build_study(study_data(folder), ARM_CONFIGS))
        for key, old, new in differing(before, _decisive(study)):
            raise UserError(
                f"{folder}: holds another study ({key}: {old!r} -> {new!r}); give this one another "
                f"--name or --fork, or `medaug resume {study.name}` to go on with that one"
            )
    return folder


def claim_folder(study: StudySpec) -> Path:
    """Write ``study`` into its :func:`free_folder`."""
    folder = free_folder(study)
    private_folder(folder)
    write_json(folder / "study.json", study.canonical())
    return folder


def forked(study: StudySpec) -> StudySpec:
    """``study``, renamed by its own signature where another one has its name already.

    What the two have in common is not made again: stores and models are shared by content.
    """
    refresh_names(study.storage)
    folder = study.storage / study.name
    if not _has_begun(folder):
        return study
    before = _decisive(build_study(study_data(folder), ARM_CONFIGS))
    if before == _decisive(study):
        return study
    digest = signature({**_decisive(study), "name": ""})
    return study.model_copy(update={"name": f"{study.name[:57]}-{digest[:6]}"})


def _has_begun(folder: Path) -> bool:
    """Whether a study has read its scans there."""
    read = (folder / "data.json").exists() or (folder / "trials").exists()
    return read and (folder / "study.json").exists()


def check_same_data(folder: Path, slices: str) -> None:
    """Keep the run in ``folder`` to the scans that it began with.

    Raises:
        IntegrityError: they are others now; half of the trials would be scored on other patients.
    """
    before = read_json(folder / "data.json")
    if before is None:
        write_json(folder / "data.json", {"slices": slices})
    elif before["slices"] != slices:
        raise IntegrityError(
            f"{folder}: began with {before['slices']}, but these scans (or this site key) make "
            f"{slices}; bring the old ones back, or give this run another --name"
        )


def _decisive(study: StudySpec) -> dict[str, Any]:
    """What a study's results depend on: not where it is kept, tracked or computed."""
    elsewhere = {"storage", *NOT_OF_RESULTS}
    return {key: value for key, value in study.canonical().items() if key not in elsewhere}


def differing(before: Any, now: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(``a.b``, value before, value now) of each key of two nested mappings that is not alike."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys([*before, *now]):
            inner = f"{path}.{key}" if path else str(key)
            yield from differing(before.get(key), now.get(key), inner)
    elif before != now:
        yield path, before, now
