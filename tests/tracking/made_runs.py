"""Runs that were never trained: a study's own plan, with results whose truth is known."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medaug.data.splits import make_splits
from medaug.experiment import generator_name, output_name
from medaug.models.unet import UNet
from medaug.plan.trials import Plan, plan_study
from medaug.seeding import numpy_generator
from medaug.spec import ClassifyTrial, StudySpec, TrialConfig, build_study
from medaug.spec.arms import ARM_CONFIGS
from medaug.storage.artifacts import Artifacts
from medaug.storage.trial_folder import TrialFolder
from medaug.store import Provenance, Splits, Store, StoreSchema, StoreWriter

SIZE, SHAPE = 32, (16, 6, 6)
SLICES = "slices-0123456789ab"
STARTED = 1_760_000_000.0

Effect = Callable[[Mapping[str, Any], int], float]
"""(:func:`labels_of` a configuration, seed) -> how far its logits are shifted towards the truth."""
Edit = Callable[[ClassifyTrial, dict[str, Any]], "dict[str, Any] | None"]
"""Changes a result before it is written; None: the trial has none."""


def study(storage: Path, **changes: Any) -> StudySpec:
    """A small study of type A; ``changes`` replace whole sections."""
    body: dict[str, Any] = {
        "name": "made",
        "paper": "A",
        "data": {"image_size": SIZE, "phantom": {"patients": 36, "d_prime": 2.6}},
        "split": {"folds": 3},
        "segmenter": {"base": 1, "epochs": 8, "pretrain": None},
        "features": {"tap": "conv4"},
        "arms": {
            "none": {},
            "duplicate": {},
            "classical": {},
            "gaussian": {},
            "acgan": {"epochs": 20},
        },
        "sweep": {"n_synthetic": [100, 300], "seeds": [0, 1, 2]},
        "controls": "none",
        "storage": str(storage),
    }
    return build_study(body | changes, ARM_CONFIGS)


def cohort(study: StudySpec) -> tuple[np.ndarray, np.ndarray, Splits]:
    """Patients (pseudonyms), their labels and the study's split of them."""
    n = study.data.phantom.patients
    patients = np.array([f"p-{number:012x}" for number in range(n)])
    labels = (np.arange(n) < round(n * study.data.phantom.positive_fraction)).astype(int)
    return patients, labels, make_splits(patients.tolist(), labels.tolist(), study.split)


def made_scores(
    study: StudySpec, effect: Effect = lambda labels, seed: 0.0, edit: Edit | None = None
) -> Path:
    """A run that consists of classifiers' results only: what a leaderboard needs."""
    folder, plan = start(study)
    for config in plan.classify:
        result = classified(study, config, effect)
        write_trial(folder, config, result if edit is None else edit(config, result))
    return folder


def start(study: StudySpec) -> tuple[Path, Plan]:
    folder = study.storage / study.name
    folder.mkdir(parents=True)
    (folder / "study.json").write_text(json.dumps(study.canonical()))
    plan = plan_study(study, SLICES)
    extract = tuple(trial for trial in plan.extract if trial.encoder is None)
    classify = tuple(trial for trial in plan.classify if not trial.linear)
    return folder, replace(plan, extract=extract, classify=classify)


def write_trial(
    folder: Path,
    config: TrialConfig,
    result: Mapping[str, Any] | None,
    history: list[dict[str, float]] | None = None,
    begun: float = 0.0,
) -> None:
    trial = folder / "trials" / config.key
    trial.mkdir(parents=True)
    (trial / "config.json").write_text(json.dumps(config.model_dump(mode="json")))
    rows = [
        {
            "epoch": epoch,
            "metrics": metrics,
            "seconds": 2.0,
            "save_seconds": 0.25,
            "time": STARTED + begun + epoch * 2.5,
        }
        for epoch, metrics in enumerate(history or [{}], start=1)
    ]
    (trial / "epochs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if result is not None:
        (trial / "result.json").write_text(json.dumps({"status": "done", **result}))


def labels_of(config: ClassifyTrial) -> dict[str, Any]:
    """What a row of the leaderboard is about, by name."""
    names = ("arm", "kind", "synthetic", "n_synthetic")
    labels = {name: getattr(config, name) for name in names} | dict(config.point)
    return labels | ({} if config.train_rows is None else {"train_rows": config.train_rows})


def config_in(trial: Path) -> ClassifyTrial:
    """Of the classifier whose own folder this is."""
    config = TrialFolder(trial.parents[1], trial.name).config()
    assert isinstance(config, ClassifyTrial)
    return config


def classified(study: StudySpec, config: ClassifyTrial, effect: Effect) -> dict[str, Any]:
    """Predictions of one classifier: a patient's evidence is shared by all configurations, the
    rest of the noise is a replicate's own."""
    patients, labels, splits = cohort(study)
    held_out = np.flatnonzero(np.isin(patients, splits.folds[config.fold].eval))
    own = numpy_generator(
        "own", *(str(item) for item in sorted(labels_of(config).items())), config.seed
    )
    rows: dict[str, list[Any]] = {"patient": [], "slice": [], "label": [], "probability": []}
    for patient in held_out.tolist():
        shared = numpy_generator("evidence", patient)
        sign = 2 * labels[patient] - 1
        evidence = sign * 0.6 + shared.normal() + 0.2 * own.normal()
        for number in range(8):
            noise = shared.normal() + 0.3 * own.normal()
            logit = evidence + noise + sign * effect(labels_of(config), config.seed)
            positive = round(float(1 / (1 + np.exp(-logit))), 6)
            rows["patient"].append(patients[patient].item())
            rows["slice"].append(number)
            rows["label"].append(int(labels[patient]))
            rows["probability"].append([round(1 - positive, 6), positive])
    return {
        "scores": {"ece": 0.1},
        "threshold": 0.5,
        "best_epoch": 4,
        "steps": 120,
        "train_rows": 192,
        "train_patients": 20,
        "split": splits.to_json()["hash"],
        "lineage": "proven",
        "history": [],
        "predictions": rows,
    }


def made_run(
    study: StudySpec,
    effect: Effect = lambda labels, seed: 0.0,
    edit: Edit | None = None,
    shape: tuple[int, ...] = SHAPE,
) -> Path:
    """A whole run with its stores and models, as a finished sweep leaves it. Without a segmenter
    the images themselves are the features; else those have the shape ``shape``."""
    folder, plan = start(study)
    artifacts = Artifacts(study.storage)
    slices = write_slices(study, artifacts)
    for config in plan.segment:
        assert study.segmenter is not None
        unet = UNet(1, study.segmenter.base)
        about = {"base": study.segmenter.base, "normalisation": [110.0, 40.0], "fitted_on": []}
        torch.manual_seed(config.fold)
        artifacts.save_model(output_name(config), unet.state_dict(), about)
        history = [
            {"train/loss": 1 / (e + 1), "val/loss": 1.1 / (e + 1), "val/dice": 0.9 - 0.8 / e,
             "val/iou": 0.85 - 0.8 / e - 0.02 * config.fold, "val/dice_tumour": 0.88 - 0.8 / e}
            for e in range(1, 9)
        ]  # fmt: skip
        scores = {"scores": history[-1], "output": output_name(config), "best_epoch": 8}
        write_trial(folder, config, {**scores, "history": history}, history)
    for config in plan.extract:
        write_rows(artifacts, output_name(config), slices, shape, synthetic=False, seed=config.fold)
        write_trial(
            folder,
            config,
            {"output": output_name(config), "rows": len(slices), "shape": shape},
            begun=30,
        )
    for config in plan.generate:
        synthetic = config.maker.kind != "classical"
        made = shape if study.features else slices.schema.shape
        write_rows(
            artifacts, output_name(config), slices, made, synthetic=synthetic, seed=config.seed
        )
        history = gan_history() if config.maker.kind == "acgan" else []
        quality = {"fd": 60.0, "fd_null": 25.0, "near_copy_rate": 0.01, "tstr": 0.6}
        result = {
            "output": output_name(config),
            "generator": generator_name(config),
            "n": 300,
            "scores": quality if synthetic else {},
        }
        write_trial(folder, config, {**result, "history": history}, history, begun=60)
    for config in plan.classify:
        result = classified(study, config, effect)
        history = [{"train/loss": 0.7, "val/loss": 0.69, "val/balanced_accuracy": 0.6}] * 12
        found = result if edit is None else edit(config, result)
        write_trial(folder, config, found, history, begun=200)
    return folder


def gan_history(epochs: int = 20) -> list[dict[str, float]]:
    """Curves of a GAN that settles; its probe looks every fifth epoch."""
    rng = numpy_generator("curves")
    history = []
    for e in range(1, epochs + 1):
        wobble = rng.normal(0, 0.03, 6)
        row = {
            "train/d_loss": 2.2 - 0.9 * (1 - np.exp(-e / 5)) + wobble[0],
            "train/g_loss": 0.2 + 0.5 * (1 - np.exp(-e / 4)) + wobble[1],
            "train/d_real": 0.7 + wobble[2],
            "train/d_fake": 0.45 + wobble[3],
            "train/class_acc_real": 0.95 - 0.4 * np.exp(-e / 3) + wobble[4] / 3,
            "train/class_acc_fake": 0.9 - 0.4 * np.exp(-e / 6) + wobble[5] / 3,
            "train/diversity": 0.3,
            "collapsed": 0.0,
        }
        if e % 5 == 0:
            row["val/fd"] = 40 + 300 / e
        history.append({name: float(value) for name, value in row.items()})
    return history


def write_slices(study: StudySpec, artifacts: Artifacts) -> Store:
    """Discs in noise with their masks, six slices a patient, as an ingest writes them."""
    patients, labels, splits = cohort(study)
    rng = numpy_generator("slices")
    each = 6
    n = len(patients) * each
    row, column = np.mgrid[:SIZE, :SIZE]
    centre, radius = rng.uniform(11, 21, (2, n, 1, 1)), rng.uniform(3, 7, (n, 1, 1))
    mask = (column - centre[0]) ** 2 + (row - centre[1]) ** 2 < radius**2
    head = (column - 15.5) ** 2 + (row - 15.5) ** 2 < 14**2
    x = head * (100 + 10 * rng.standard_normal((n, SIZE, SIZE)) + 70 * mask)
    owner = patients.repeat(each)
    counts = {c: int((labels == k).sum()) for k, c in enumerate(study.data.classes)}
    extra = {
        "moments": {},
        "parts": {},
        "ingest": {
            "patients": counts,
            "slices": {name: count * each for name, count in counts.items()},
            "rejects": [["p-00000000dead", "is truncated; copy it again"]],
            "notes": ["simulated"],
            "free_text": 3,
        },
        "data": study.data.model_dump(mode="json", exclude={"root"}),
    }
    provenance = Provenance("slices", "0" * 12, (), (), synthetic=False)
    with StoreWriter(
        artifacts.store_path(SLICES),
        StoreSchema((1, SIZE, SIZE), "float32", (SIZE, SIZE)),
        provenance=provenance,
        classes=study.data.classes,
        splits=splits,
        extra=extra,
    ) as writer:
        writer.write(
            x[:, None].astype(np.float32),
            mask=(mask & head).astype(np.uint8),
            label=labels.repeat(each),
            patient=owner,
            volume=owner,
            slice_index=np.arange(n) % each,
            tumour_pixels=(mask & head).sum((1, 2)),
        )
    return artifacts.open_store(SLICES)


def write_rows(
    artifacts: Artifacts,
    name: str,
    slices: Store,
    shape: tuple[int, ...],
    *,
    synthetic: bool,
    seed: int,
) -> None:
    """Features of every slice, or 300 generated ones: blobs whose place depends on the class."""
    rng = numpy_generator("rows", name, seed)
    label = np.arange(300) % 2 if name.startswith("rows") else slices.labels
    n = len(label)
    base = numpy_generator("blobs").gamma(1.5, 1.0, (2, *shape))
    x = base[label] * rng.gamma(4.0, 0.25, (n, *shape)) * (0.8 if synthetic else 1.0)
    provenance = Provenance("made", "0" * 12, (SLICES,), (), synthetic=synthetic)
    generated = name.startswith("rows")
    with StoreWriter(
        artifacts.store_path(name),
        StoreSchema(shape, "float16"),
        provenance=provenance,
        classes=slices.classes,
        splits=slices.splits,
    ) as writer:
        writer.write(
            x.astype(np.float16),
            label=label,
            patient="" if generated else slices.patients,
            volume=name if generated else slices.volumes,
            slice_index=-1 if generated else slices.slice_index,
        )
