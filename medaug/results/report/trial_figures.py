"""Figures about one trial, kept as PNG in ``figures/<trial key>/``.

A sweep has thousands of trials whose figures nobody could look at: drawn is one replicate of each
configuration and fold.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from medaug.errors import MedaugError
from medaug.experiment import output_name
from medaug.experiment.segment import load_unet
from medaug.results.records import TrialRecord
from medaug.results.report.curves import gan_curves, segmenter_curves
from medaug.results.report.evidence import Evidence
from medaug.results.report.pictures import TILES, Overlay, montage, overlays, strongest
from medaug.results.report.style import png
from medaug.spec import GenerateTrial, SegmentTrial, TrialConfig
from medaug.storage.files import private_folder, write_whole
from medaug.store import Store
from medaug.train.segment import normalise


def has_figures(config: TrialConfig) -> bool:
    """Whether trials of its stage are drawn."""
    return config.stage in _OF_STAGE


def replicated(config: TrialConfig) -> Hashable:
    """What the replicates of one configuration have in common on one fold."""
    if not isinstance(config, GenerateTrial):
        return config.stage, config.fold, config.key
    point = tuple(sorted((key, repr(value)) for key, value in config.point.items()))
    return config.stage, config.fold, config.arm, point, config.train_rows, config.n


def with_figures(trials: Iterable[TrialRecord]) -> list[TrialRecord]:
    """The finished trials that have figures of their own: of replicates the first seed and draw,
    and of two of those the one that ended last, whose rows are the ones that are used."""
    done = [each for each in trials if each.status == "done" and has_figures(each.config)]
    latest_first = sorted(done, key=lambda trial: (trial.ended, trial.config.key), reverse=True)
    in_order = sorted(latest_first, key=lambda trial: trial.replicate[:2])
    first: dict[Hashable, TrialRecord] = {}
    for trial in in_order:
        first.setdefault(replicated(trial.config), trial)
    return list(first.values())


def draw_trial(run: Evidence, trial: TrialRecord) -> Iterator[str]:
    """Draw what a trial :func:`with_figures` has to show, once; say what went wrong.

    A store or model that is damaged costs its figure, no more.
    """
    for name, draw in _OF_STAGE[trial.config.stage].items():
        path = figure_path(run, name, trial)
        try:
            if not path.exists() or path.stat().st_mtime < trial.ended:
                keep(path, draw(run, trial))
        except MedaugError as error:
            yield f"{name} of {trial.config.title}: {error}"


def _trial_curves(run: Evidence, trial: TrialRecord) -> Figure | None:
    return gan_curves(trial.history)


def _unet_curves(run: Evidence, trial: TrialRecord) -> Figure | None:
    return segmenter_curves({"": trial.history})


def _trial_montage(run: Evidence, trial: TrialRecord) -> Figure | None:
    """Real training rows beside those that the trial made."""
    config = trial.generate
    names = config.features, output_name(config)
    if not all(map(run.artifacts.has_store, names)):
        return None
    features = run.features(config.features)
    if len(features.schema.shape) != 3:  # vectors: nothing to look at
        return None
    real, made = features.split("train", config.fold), run.artifacts.open_store(names[1])
    images = real.provenance.encoder is None
    tiles = _image_tiles if images else _feature_tiles
    pairs = {
        name: tiles(real, made, label)
        for label, name in enumerate(real.classes)
        if (real.labels == label).any() and (made.labels == label).any()
    }
    arm = config.arm
    return montage(pairs, ("real", arm), images=images) if pairs else None


def _feature_tiles(real: Store, made: Store, label: int) -> tuple[np.ndarray, np.ndarray]:
    """The same channels of one row each: the real one has the largest tumour of its class."""
    rows = np.flatnonzero(real.labels == label)
    chosen = rows[real.tumour_pixels[rows].argmax()]
    ours = real.read([chosen]).x[0].float().numpy()
    theirs = made.read([np.flatnonzero(made.labels == label)[0]]).x[0].float().numpy()
    channels = strongest(ours)
    return ours[channels], theirs[channels]


def _image_tiles(real: Store, made: Store, label: int) -> tuple[np.ndarray, np.ndarray]:
    """Images spread evenly over the rows, so over patients."""
    sides = []
    for store in (real, made):
        rows = np.flatnonzero(store.labels == label)
        chosen = rows[np.linspace(0, len(rows) - 1, min(TILES, len(rows))).astype(int)]
        x_NCHW = store.read(chosen).x.float().numpy()
        sides.append(np.stack([shown(x_CHW, real) for x_CHW in x_NCHW]))
    return sides[0], sides[1]


def shown(x_CHW: np.ndarray, store: Store) -> np.ndarray:
    """(H, W, 3) where the rows of ``store`` are pictures in colour; else the first channel."""
    return x_CHW.transpose(1, 2, 0) if store.manifest["extra"].get("colour") else x_CHW[0]


def _trial_overlays(run: Evidence, trial: TrialRecord) -> Figure | None:
    """Of the first patients that it was not trained on, the slice with the largest tumour."""
    assert isinstance(trial.config, SegmentTrial)
    name, output = trial.config.slices, output_name(trial.config)
    if not (run.artifacts.has_store(name) and run.artifacts.has_model(output)):
        return None
    slices, fold = run.artifacts.open_store(name), trial.config.fold
    val = slices.split("val", fold)
    if not len(val):  # published splits let the scored patients choose
        val = slices.split("eval", fold)
    patients = np.unique(val.patients)[:4]
    rows = []
    for patient in patients:
        theirs = np.flatnonzero(val.patients == patient)
        rows.append(theirs[val.tumour_pixels[theirs].argmax()])
    batch = val.read(np.array(rows, int))
    if batch.mask is None or not rows:
        return None
    unet, about = load_unet(output, run.artifacts)
    unet.eval()
    with torch.inference_mode():
        logits = unet(normalise(batch.x, tuple(about["normalisation"])))
    return overlays(
        [
            Overlay(
                f"{val.classes[val.labels[row]]}, slice {val.slice_index[row]}",
                shown(batch.x[place].float().numpy(), val),
                batch.mask[place].numpy() > 0,
                logits[place, 0].numpy() > 0,
            )
            for place, row in enumerate(rows)
        ]
    )


_OF_STAGE: dict[str, dict[str, Callable[[Evidence, TrialRecord], Figure | None]]] = {
    "segment": {"curves": _unet_curves, "overlay": _trial_overlays},
    "generate": {"curves": _trial_curves, "montage": _trial_montage},
}


def figure_path(run: Evidence, name: str, trial: TrialRecord | None = None) -> Path:
    folder = run.folder / "figures"
    return (folder / trial.config.key if trial else folder) / f"{name}.png"


def keep(path: Path, figure: Figure | None) -> None:
    """Write the figure; without one, no older figure may stay."""
    if figure is None:
        path.unlink(missing_ok=True)
        return
    private_folder(path.parent)
    write_whole(path, png(figure))
