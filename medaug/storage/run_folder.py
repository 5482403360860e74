"""A run's folder where it is this node's copy of one in a bucket: what comes here, what goes there.

Records of trials come (``medaug.storage.trial_folder.FILES``), and what stands by ``study.json``;
checkpoints, models and stores only come where they are used. Elsewhere nothing here does anything.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from medaug.errors import UserError
from medaug.spec.legacy import upgraded_study
from medaug.spec.study import NAME_PATTERN
from medaug.storage import storage_at
from medaug.storage.trial_folder import FILES, read_json

_NAME = re.compile(NAME_PATTERN)
_NO_RUNS = {"stores", "models"}
_RECORD = re.compile(r"((trials|bundles)/[^/]+/)?[^/.][^/]*\.(json|jsonl|log)")
_OF_THIS_NODE = re.compile(r"(lease-\d+\.json|mlflow.*)")
"""Leases change by conditional writes only; what MLflow has heard, each machine knows itself."""


def refresh_names(storage: Path) -> None:
    """Know here which runs there are in ``storage``.

    Raises:
        UserError: the library that speaks to its bucket is not installed.
        EnvironmentFault: the bucket is not there, or does not let us in.
    """
    at = storage_at(storage)
    if not at.nodes_see_files:
        at.reach(storage)
        at.refresh([storage / name / "study.json" for name in _runs(storage)])


def refresh_run(folder: Path) -> None:
    """Have here what the trials of the run have left, and what is known of it as a whole."""
    here = [trial / name for trial in (folder / "trials").glob("*") for name in FILES]
    storage_at(folder).mirror(folder, _is_record, here)


def run_in(storage: Path, name: str) -> Path:
    """The folder of run ``name``, up to date; raises as :func:`refresh_names`.

    Raises:
        UserError: it cannot be a name, so that no path leads out of the storage.
    """
    if not _NAME.fullmatch(name):
        raise UserError(
            f"{name[:64]!r}: cannot be a run's name; write 1 to 64 letters, digits, '.', '_' or '-'"
            " (--storage says where it is)"
        )
    refresh_names(storage)
    refresh_run(storage / name)
    return storage / name


def refresh_runs(storage: Path) -> None:
    """:func:`refresh_run` for all runs in ``storage``; raises as :func:`refresh_names`."""
    refresh_names(storage)
    if not storage_at(storage).nodes_see_files:
        for name in _runs(storage):
            refresh_run(storage / name)


def study_data(folder: Path) -> dict[str, Any]:
    """The resolved study of the run in ``folder`` as plain data, from which it can be built.

    Raises:
        UserError: there is no such run; names the runs that exist.
    """
    study = read_json(folder / "study.json")
    if study is None:
        runs = sorted(p.parent.name for p in folder.parent.glob("*/study.json"))
        known = f"; have {', '.join(runs)}" if runs else f"; {folder.parent} holds no runs"
        raise UserError(f"{folder.name}: no such run{known} (--storage names another place)")
    return upgraded_study(study)


def share_run(folder: Path) -> None:
    """Put report, figures and what is known of the run as a whole into the bucket."""
    shown = ("*.json", "*.log", "*.html", "figures/**/*.png", "figures/**/*.csv")
    storage_at(folder).publish_new(folder, *shown, skip=_OF_THIS_NODE)


def _runs(storage: Path) -> list[str]:
    return [name for name in storage_at(storage).folders(storage) if name not in _NO_RUNS]


def _is_record(name: str) -> bool:
    return bool(_RECORD.fullmatch(name)) and not _OF_THIS_NODE.fullmatch(name.rpartition("/")[2])
