"""A pickle that would run code is planted in every file of a storage folder: nothing runs.

Twice over: as it is, which the hashes notice, and with every hash forged to agree with it, when only
the way of loading is left to stand guard.
"""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from click.testing import CliRunner
from safetensors import SafetensorError

import medaug
from medaug.cli import main
from medaug.errors import MedaugError
from medaug.ownership.identity import claim_folder
from medaug.spec import build_study
from medaug.spec.arms import ARM_CONFIGS
from medaug.storage.artifacts import MANIFEST as ARTIFACTS_MANIFEST
from medaug.storage.artifacts import write_manifest
from medaug.storage.files import sha256_of
from medaug.storage.manifest import read_sealed, sealed
from medaug.storage.run_folder import study_data
from medaug.storage.trial_folder import TrialFolder
from medaug.store.digest import digest_of
from medaug.train.checkpoint import Ledger
from tests.audit.small_runs import SLICES, run, study

EPOCH = {"epoch": 1, "metrics": {}, "seconds": 1.0, "save_seconds": 0.1, "time": 1.0}


class Marker:
    """Unpickling it makes the file ``path``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return open, (str(self.path), "w")


def plain(path: Path) -> bytes:
    return pickle.dumps(Marker(path))


def in_torch_s_format(path: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save({"epoch": 1, "optimizer": Marker(path)}, buffer)
    return buffer.getvalue()


KINDS = {
    "state.pt": ("**/state.pt", in_torch_s_format),
    "plain state.pt": ("**/state.pt", plain),
    "weights": ("**/*.safetensors", plain),
    "shards": ("**/*.arrow", plain),
    "sidecars and manifests": ("stores/**/*.json", plain),
    "manifests of models": (f"**/{ARTIFACTS_MANIFEST}", plain),
    "trials": ("small/trials/*/*.json", plain),
    "logs of trials": ("small/trials/*/*.jsonl", plain),
    "the study": ("small/study.json", plain),
    "models": ("models/*/*.json", plain),
    "all of it": ("**/*", plain),
}
FOREIGN = (
    *("tuner.pkl", "trainable.pkl", "searcher-state.pkl", "search_gen_state.pkl"),
    *("experiment_state.json", "python_model.pkl", "model.pkl", ".validate_storage_marker"),
)
"""What Ray Tune, MLflow and others would unpickle if they found it."""

DAMAGED = (SafetensorError, ValueError, KeyError, TypeError, pa.ArrowInvalid)
"""With forged hashes a file may be refused by the library that parses it, in its own words."""


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("storage")
    arms = {"none": {}, "gaussian": {"components": 4}}
    sweep = {"n_synthetic": [24], "seeds": [0]}
    spec = study(path, arms=arms, sweep=sweep, split={"folds": 2, "test_fraction": 0.0})
    folder = run(spec)
    for trial in (folder / "trials").iterdir():
        TrialFolder(folder, trial.name).log_epoch(EPOCH)
    return path


def forge(storage: Path) -> None:
    """Make all hashes agree with what is there."""
    for folder in storage.glob("small/trials/*/ep_*"):
        try:
            body = read_sealed(folder / "MANIFEST.json")
        except MedaugError:  # the manifest itself is the pickle
            continue
        for name in body["files"]:
            content = folder / name
            body["files"][name] = {"bytes": content.stat().st_size, "sha256": sha256_of(content)}
        (folder / "MANIFEST.json").write_bytes(sealed(body))
    for folder in (storage / "models").glob("*"):
        if json_or_none(folder / ARTIFACTS_MANIFEST) is not None:
            (folder / ARTIFACTS_MANIFEST).unlink()
            write_manifest(folder)
    for folder in (storage / "stores").glob("*-*"):
        forge_store(folder)


def forge_store(folder: Path) -> None:
    try:
        manifest = read_sealed(folder / "manifest.json")
        for shard in manifest["shards"]:
            content = folder / shard["file"]
            true = {"bytes": content.stat().st_size, "digest": digest_of(content)}
            sidecar = content.with_suffix(".json")
            sidecar.write_bytes(sealed(read_sealed(sidecar) | true))
            shard |= true
    except MedaugError:
        return
    (folder / "manifest.json").write_bytes(sealed(manifest))


def json_or_none(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except ValueError:
        return None


def ways_to_load(storage: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """Everything that reads a storage folder, as a user calls it."""
    options = ["--storage", str(storage)]
    for command in ("leaderboard", "report", "unseal"):
        yield command, lambda command=command: invoke([command, "small", *options])
    out = storage.with_name(f"{storage.name}-out")
    yield "export", lambda: invoke(["export", "small", "--out", str(out), *options])
    yield "open_store", lambda: medaug.open_store(storage / "stores" / SLICES).read(slice(0, 4))
    yield "load_generator", lambda: medaug.load_generator("small", storage).sample(2, "HGG")
    for folder in storage.glob("models/*"):
        yield "a model", lambda folder=folder: medaug.load_generator(folder.name, storage)
    yield (
        "resume: the study",
        lambda: claim_folder(build_study(study_data(storage / "small"), ARM_CONFIGS)),
    )
    for folder in storage.glob("small/trials/*"):
        trial = TrialFolder(storage / "small", folder.name)
        for read in (trial.config, trial.result, trial.stopped, trial.failure, trial.epochs):
            yield f"resume: {read.__name__}", read
        yield (
            "resume: the ledger",
            lambda key=folder.name: Ledger(storage / "small" / "trials" / key).latest(key),
        )


def invoke(command: list[str]) -> None:
    done = CliRunner().invoke(main, command)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception


def test_the_pickles_are_live(tmp_path: Path) -> None:
    """Whoever unpickles them runs them: what the test below relies on."""
    pickle.loads(plain(tmp_path / "one"))
    torch.load(io.BytesIO(in_torch_s_format(tmp_path / "two")), weights_only=False)
    assert (tmp_path / "one").exists()
    assert (tmp_path / "two").exists()


@pytest.mark.parametrize(
    ("kind", "forged"), [("all of it", False), *((kind, True) for kind in KINDS)]
)
def test_nothing_that_is_planted_runs(
    storage: Path, tmp_path: Path, kind: str, forged: bool
) -> None:
    copy, marker = tmp_path / "storage", tmp_path / "executed"
    shutil.copytree(storage, copy)
    pattern, make = KINDS[kind]
    files = [path for path in copy.glob(pattern) if path.is_file()]
    assert files
    for path in files:
        path.write_bytes(make(marker))
    for folder in (copy, copy / "small", *copy.glob("small/trials/*"), *copy.glob("models/*")):
        for name in FOREIGN:
            (folder / name).write_bytes(plain(marker))
    if forged:
        forge(copy)
    for what, load in ways_to_load(copy):
        with contextlib.suppress(MedaugError, *DAMAGED):
            load()
        assert not marker.exists(), f"{what} ran it"


def test_without_a_plant_all_of_it_loads(storage: Path, tmp_path: Path) -> None:
    """So the refusals above are about the pickles."""
    copy = tmp_path / "storage"
    shutil.copytree(storage, copy)
    for what, load in ways_to_load(copy):
        if what != "a model":  # classifiers are no generators
            load()
