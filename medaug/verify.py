"""A run from end to end: is every file behind its numbers what was written?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from medaug.errors import IntegrityError, UserError
from medaug.ownership.seals import check_run
from medaug.results.records import read_study, read_trials
from medaug.storage.artifacts import Artifacts
from medaug.storage.files import sha256_of
from medaug.storage.journal import Record
from medaug.storage.json_files import read_json
from medaug.storage.manifest import MANIFEST, read_manifest, read_sealed, verified
from medaug.store import Store
from medaug.store.digest import digest_of, promised_digest
from medaug.store.manifest import MANIFEST as STORE_MANIFEST

_NAME = re.compile(r"[\w.-]{1,100}")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    said: str
    whole: bool = True

    def __str__(self) -> str:
        return f"{self.what:<44} {self.said if self.whole else f'DAMAGED: {self.said}'}"


def verify(folder: Path) -> Iterator[Finding]:
    """Look at the run in ``folder``: its records, then each store and model, then checkpoints.

    All content is read and hashed again, whatever was found whole before. A store that is not here
    comes here, where the storage is a bucket.

    Raises:
        UserError: there is no such run.
        EnvironmentFault: the storage cannot be read, or a package is missing.
    """
    read_study(folder)
    record: Record | None = None
    try:
        sealing = check_run(folder)
        record = sealing.record
        for remark in sealing.remarks(folder.name):
            yield Finding("run", remark.removeprefix(f"{folder.name}: "))
        if record is not None:
            keyed = "with this site's key" if record.keyed == record.lines else "without a key"
            said = f"{record.lines} lines, {len(record.files)} files, sealed {keyed}"
            yield Finding("journal", said)
    except IntegrityError as damage:
        yield Finding("run", str(damage), whole=False)
    names: set[str] = set()
    try:
        slices = (read_json(folder / "data.json") or {}).get("slices")
        names |= {slices} if isinstance(slices, str) and _NAME.fullmatch(slices) else set()
        trials = list(read_trials(folder))
        for trial in trials:
            names.update(trial.config.inputs)
            names.update(trial.result.made if trial.result else ())
        missing = len(record.planned - {t.config.key for t in trials}) if record else 0
        done = sum(trial.status == "done" for trial in trials)
        yield Finding("trials", f"{len(trials)}, {done} of them done, {missing} missing")
    except IntegrityError as damage:
        yield Finding("trials", str(damage), whole=False)
    artifacts = Artifacts(folder.parent)
    for name in sorted(names):
        yield _artifact(artifacts, name, record)
    checkpoints = sorted(folder.glob(f"trials/*/ep_*/{MANIFEST}"))
    for path in checkpoints:
        try:
            verified(path.parent, "resume goes on from the one before")
        except IntegrityError as damage:
            yield Finding(path.parent.name, str(damage), whole=False)
    if checkpoints:
        yield Finding("checkpoints", f"{len(checkpoints)} looked at")


def _artifact(artifacts: Artifacts, name: str, record: Record | None) -> Finding:
    """One store or model by its name."""
    is_store = artifacts.has_store(name)
    what = f"{'stores' if is_store else 'models'}/{name}"
    if not is_store and not artifacts.has_model(name):
        return Finding(
            name, "not there; resume makes it again where a trial still reads it", whole=False
        )
    try:
        if is_store:
            artifacts.fetch_store(name)
            manifest, said = artifacts.store_path(name) / STORE_MANIFEST, _store(artifacts, name)
        else:
            folder = artifacts.verified_model(name)
            n = len(read_manifest(folder)["files"])
            manifest, said = folder / MANIFEST, f"whole, {n} files"
    except (UserError, IntegrityError) as damage:  # what fails around it is no damage
        return Finding(what, str(damage), whole=False)
    known = record.made.get(f"{what}/{manifest.name}") if record else None
    if known is not None and known != sha256_of(manifest):
        return Finding(what, "whole, but not the one that this run has made", whole=False)
    return Finding(what, said + (", the one that this run has made" if known else ""))


def _store(artifacts: Artifacts, name: str) -> str:
    path = artifacts.store_path(name)
    body = read_sealed(path / STORE_MANIFEST)
    for shard in body["shards"]:
        file, digest = path / shard["file"], promised_digest(shard)
        if not file.is_file() or digest_of(file, digest) != digest:
            raise IntegrityError(
                f"{file}: is not what its manifest promises; delete {path} and resume the run"
            )
    store = Store.open(path)
    return f"whole, {len(store)} rows in {len(body['shards'])} shards, {body['bytes'] / 1e6:.1f} MB"
