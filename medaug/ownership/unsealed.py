"""Files behind a number that no line of a run's journal vouches for.

A driver that was killed leaves results of trials that were planned and have not ended: they are
counted, said, and sealed by ``resume``. Everything else is not of this run.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from medaug.errors import IntegrityError
from medaug.storage.bundle_folder import TRIALS, BundleFolder, keys_of_part
from medaug.storage.journal import Record

OF_RESULTS = ("trials/*/result.json", "bundles/*/part-*.jsonl")
_CONFIRMATIONS = {"unsealed.json": "unseal", "external-*.json": "score"}
"""What is written once and sealed at once, by command."""


def unsealed_results(folder: Path, record: Record) -> list[str]:
    """Names of the results in ``folder`` that ``record`` does not know yet.

    Raises:
        IntegrityError: a file is of a trial that the run never planned or has sealed already, or
            is a record of scores that nobody has sealed.
    """
    if record.older:  # what was planned before there was a journal, nobody knows
        names = (p.relative_to(folder).as_posix() for pt in OF_RESULTS for p in folder.glob(pt))
        return [name for name in names if name not in record.files]
    for pattern, command in _CONFIRMATIONS.items():
        for path in folder.glob(pattern):
            if path.name not in record.files:
                raise IntegrityError(
                    f"{path}: is not sealed, so that `medaug {command}` of this run has not "
                    f"finished it; delete it and `medaug {command} {folder.name}` again"
                )
    for path in folder.glob("trials/*/config.json"):
        _check_planned(path.parent, [path.parent.name], record)
    found = [(path, keys) for path, keys in _loose(folder, record)]
    sealed = _sealed_keys(folder, record) if found else {}
    for path, keys in found:
        _check_planned(path, keys, record)
        for key in keys:
            if key in sealed and sealed[key] != path and key in record.ended:  # not begun again
                raise IntegrityError(
                    f"{path}: tells of trial {key}, whose result {sealed[key]} is sealed; delete it"
                )
            if record.ended.get(key) == "stopped":
                raise IntegrityError(
                    f"{path}: tells of trial {key}, which was stopped early; delete it"
                )
    return [path.relative_to(folder).as_posix() for path, _ in found if path.name != TRIALS]


def _check_planned(path: Path, keys: list[str], record: Record) -> None:
    for key in keys:
        if key not in record.planned:
            raise IntegrityError(
                f"{path}: is of a trial ({key}) that this run has never planned; delete it"
            )


def _loose(folder: Path, record: Record) -> Iterator[tuple[Path, list[str]]]:
    """Every file of results, or of what a bundle's trials are, that is not sealed; its trials."""
    for path in sorted(folder.glob("trials/*/result.json")):
        if f"trials/{path.parent.name}/{path.name}" not in record.files:
            yield path, [path.parent.name]
    for path in sorted(folder.glob("bundles/*/*")):
        if f"bundles/{path.parent.name}/{path.name}" in record.files:
            continue
        if path.name == TRIALS:
            bundle = BundleFolder(folder, path.parent.name)
            yield path, [trial.key for trial in bundle.trials()]
        elif path.match("part-*.jsonl"):
            yield path, keys_of_part(path)


def _sealed_keys(folder: Path, record: Record) -> dict[str, Path]:
    """The sealed file of each trial's result."""
    found: dict[str, Path] = {}
    for name in record.files:
        path = folder / name
        if name.startswith("trials/") and path.name == "result.json":
            found[path.parent.name] = path
        elif name.startswith("bundles/") and path.match("part-*.jsonl") and path.exists():
            found |= dict.fromkeys(keys_of_part(path, failed=False), path)
    return found
