"""The best trained generator of a run as a registered MLflow model, without a pickle in it."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medaug.results.numbers import with_interval
from medaug.results.records import TrialRecord, read_trial
from medaug.results.rows import Leaderboard, Row
from medaug.storage.temporary import temporary_folder
from medaug.tracking.mirror import Mirror, read_sent

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature

CODE = Path(__file__).with_name("generator_model.py")
ARTIFACT = "generator"
BEST = "best"


def register_best(mirror: Mirror, board: Leaderboard) -> None:
    """Make the best configuration's generator a version of ``<run>-generator``, alias ``best``.

    One that is registered already gets only the alias and its present standing.
    """
    from medaug.experiment import generator_name
    from medaug.storage.artifacts import Artifacts

    if (best := best_generator(mirror.folder, board)) is None:
        return
    row, trial = best
    sent = read_sent(mirror.folder / "trials" / trial.config.key)
    client = mirror.runs.client
    model, name = f"{mirror.folder.name}-generator", generator_name(trial.config)
    if sent is not None:
        run_id, place = sent.run_id, ARTIFACT
    else:  # made in a bundle, it has no run of its own
        run_id, place = mirror.parent.run_id, f"{ARTIFACT}/{name}"
    number = _registered(client, model, name)
    if number is None:
        folder = Artifacts(mirror.folder.parent).verified_model(name)
        _upload(client, run_id, folder, place)
        source = f"{client.get_run(run_id).info.artifact_uri}/{place}"
        made = client.create_model_version(model, source, run_id, tags={"generator": name})
        number = made.version
    for tag, value in _standing(row, trial).items():
        client.set_model_version_tag(model, number, tag, value)
    client.update_model_version(model, number, _description(row, trial))
    client.set_registered_model_alias(model, BEST, number)


def best_generator(
    folder: Path, board: Leaderboard, arm: str | None = None
) -> tuple[Row, TrialRecord] | None:
    """(row, ``generate`` trial) of the first row whose generator makes rows without training data;
    see :func:`best_maker`."""
    return best_maker(folder, board, arm, is_portable)


def best_maker(
    folder: Path, board: Leaderboard, arm: str | None, wanted: Callable[[str], bool]
) -> tuple[Row, TrialRecord] | None:
    """(row, ``generate`` trial) of the first row with an arm of a ``wanted`` kind.

    ``arm``: of the rows of this arm. Of a row's replicates the first fold's and seed's is taken,
    whatever it scored: choosing the luckiest would be choosing by the held-out patients.
    """
    rows = [
        row for row in board.rows if row.replicates and wanted(row.kind) and arm in (None, row.arm)
    ]
    for row in sorted(rows, key=_standing_order):
        trials = [read_trial(folder / "trials" / key) for key in row.trials]
        done = [trial for trial in trials if trial.status == "done"]
        first = min(done, key=lambda trial: (trial.config.fold, trial.config.seed))
        maker = (first.classify.rows or "").removeprefix("rows-")
        if maker and (made := read_trial(folder / "trials" / maker)).status == "done":
            return row, made
    return None


def is_portable(kind: str) -> bool:
    """Whether arms of this kind make rows where no training data are."""
    from medaug.arms import ARMS, GeneratedArm

    if kind not in ARMS:  # of a package that is not installed any more
        return False
    arm = ARMS[kind]
    return issubclass(arm, GeneratedArm) and arm.portable


def _standing_order(row: Row) -> tuple[float, float]:
    """Ranked rows by rank, then the others by the lower bound of their balanced accuracy."""
    return row.rank or math.inf, -row.low


def _registered(client: MlflowClient, model: str, generator: str) -> str | None:
    """The version that holds ``generator``, if there is one; makes the model if it is new."""
    if not client.search_registered_models(f"name = '{model}'"):
        client.create_registered_model(model, description="Generators of medaug's training rows")
    for known in client.search_model_versions(f"name = '{model}'"):
        if known.tags.get("generator") == generator:
            return known.version
    return None


def _upload(client: MlflowClient, run_id: str, folder: Path, place: str) -> None:
    """Write the model that ``folder`` holds the weights of, and give it to the run."""
    import pandas as pd
    from mlflow import pyfunc

    with temporary_folder("medaug-model-") as private:
        # From copies here, because MLflow writes into the model where its parts came from.
        shutil.copytree(folder, private / "generator")
        shutil.copyfile(CODE, private / CODE.name)  # not its mode: it may be open to all
        about = json.loads((folder / "about.json").read_text())
        pyfunc.save_model(
            str(private / "model"),
            python_model=str(private / CODE.name),
            artifacts={"generator": str(private / "generator")},
            signature=_signature(about["shape"]),
            input_example=pd.DataFrame({"label": [0, 1], "n": [2, 2], "seed": [0, 0]}),
            metadata={"classes": about["classes"]},
            pip_requirements=[f"medaug=={version('medaug')}"],
        )
        client.log_artifacts(run_id, str(private / "model"), place)


def _signature(shape: list[int]) -> ModelSignature:
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    names = ("label", "n", "seed")
    wanted = Schema([ColSpec("long", name, required=name == "label") for name in names])
    rows = Schema([TensorSpec(np.dtype("float32"), (-1, *shape))])
    return ModelSignature(inputs=wanted, outputs=rows)


def _standing(row: Row, trial: TrialRecord) -> dict[str, Any]:
    return {
        "arm": row.arm,
        "configuration": row.title,
        "fold": trial.config.fold,
        "seed": trial.config.seed,
        "rank": row.rank or "not rankable",
        "flags": "; ".join(row.flags) or "none",
    }


def _description(row: Row, trial: TrialRecord) -> str:
    score = with_interval(row.mean, row.low, row.high)
    gain = with_interval(row.gain, row.gain_low, row.gain_high, signed=True)
    return (
        f"{row.title}, fitted on the training patients of fold {trial.config.fold}. With its rows: "
        f"balanced accuracy {score}, gain {gain or 'unknown'}. "
        f"Flags: {'; '.join(row.flags) or 'none'}."
    )
