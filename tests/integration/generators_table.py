"""Generators of images at an equal budget, judged on a frozen network's features.

    python -m tests.integration.generators_table STORAGE SLICES --seconds 60 --grids FOLDER

Each is fitted to the training patients of fold 0, at 32 x 32 pixels, with as many epochs as one
core does in the budget, and judged on that fold's held out patients by EfficientNet-Lite0's
numbers; a grid of its images is drawn.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from medaug.arms import ARMS, ArmContext, GeneratedArm
from medaug.encoders import encoder_of
from medaug.metrics.classification import balanced_accuracy, confusion_matrix
from medaug.metrics.quality import quality_report
from medaug.spec import build_arm
from medaug.spec.arms import ARM_CONFIGS
from medaug.spec.encoder import EfficientNetLite0Spec
from medaug.storage.artifacts import Artifacts
from medaug.store import Provenance, Store, StoreSchema, StoreWriter
from medaug.train.world import World

SIDE, EACH = 32, 150
"""Pixels, and generated rows of a class."""
WITHIN, ATTEMPTS = 0.3, 6
"""How far from the budget a fit may end, and how many fits look for the number of epochs."""
FIRST, SECOND, SHARE = 2, 16, 0.1
"""Epochs of the first short fit, which imports and compiles, and of the second at least; and the
share of the budget that the second takes where that is more."""
SHORT = {"steps_per_epoch": 10}
"""An epoch of thousands of images would take longer than the budget."""
NARROW = {"networks": "dcgan32", "width": 32}
"""At the paper's width a core does forty steps a minute."""
GENERATORS: Mapping[str, Mapping[str, Any]] = {
    "class Gaussian": {"kind": "gaussian"},
    "PCA flow": {"kind": "flow"},
    "DCGAN": {"kind": "dcgan", **NARROW, **SHORT},
    "DCGAN, DiffAugment": {"kind": "dcgan", "d_aug": "diffaugment", **NARROW, **SHORT},
    "ACGAN": {"kind": "acgan", "filter": "none", **SHORT},
    "image flow": {"kind": "flow_image", **SHORT},
}  # fmt: skip


@dataclass(frozen=True)
class Made:
    """What one generator came to."""

    epochs: int
    seconds: float
    x: np.ndarray
    """(n, C, 32, 32)."""
    label: np.ndarray
    collapsed: str = ""


def smaller(rows: Store, folder: Path) -> Store:
    """The same rows at 32 x 32 pixels, in a store of their own."""
    channels = rows.schema.shape[0]
    with StoreWriter(
        folder,
        StoreSchema((channels, SIDE, SIDE), "float32"),
        provenance=Provenance("slices", "0" * 12, (), (), synthetic=False),
        classes=rows.classes,
        extra=rows.manifest["extra"],
    ) as writer:
        for part in np.array_split(np.arange(len(rows)), max(1, len(rows) // 256)):
            x = torch.nn.functional.interpolate(
                rows.read(part).x.float(), (SIDE, SIDE), mode="area"
            )
            writer.write(
                x.numpy(),
                label=rows.labels[part],
                patient=rows.patients[part],
                volume=rows.volumes[part],
                slice_index=rows.slice_index[part],
            )
    return Store.open(folder)


def make(keys: Mapping[str, Any], context: ArmContext, seconds: float) -> Made:
    """Fit within the budget of processor time, and draw.

    A GAN can be read at the end of its training only, so it is trained again with more or fewer
    epochs until what a whole fit took is :data:`WITHIN` the budget. Two short fits tell what an
    epoch takes, and what the rest.  The second is long enough to tell it well: of a fit of ten
    minutes there should be one.
    """
    n = EACH * len(context.train.classes)
    if not hasattr(build_arm("a", keys, ARM_CONFIGS), "epochs"):
        arm, spent = _fitted(keys, context)
        return Made(0, spent, *_drawn(arm, context, n))
    wanted, epochs, spent = FIRST, 0, 0.0
    for attempt in range(ATTEMPTS):
        before = epochs, spent
        epochs = wanted
        arm, spent = _fitted({**keys, "epochs": epochs, "eval_every": epochs}, context)
        if abs(spent / seconds - 1) <= WITHIN or (epochs == 1 and spent > seconds):
            break
        each = max(spent - before[1], 1e-3) / max(epochs - before[0], 1)
        aim = seconds if attempt else SHARE * seconds
        wanted = max(1 if attempt else SECOND, round(epochs + (aim - spent) / each))
    return Made(epochs, spent, *_drawn(arm, context, n))


def _fitted(keys: Mapping[str, Any], context: ArmContext) -> tuple[GeneratedArm, float]:
    """The arm, and the processor time in seconds that it took."""
    began = time.process_time()
    spec = build_arm("a", {**keys}, ARM_CONFIGS)
    arm: GeneratedArm = ARMS[spec.kind](spec)  # type: ignore[assignment]
    for _ in arm.fit(context):
        pass
    return arm, time.process_time() - began


def _drawn(arm: GeneratedArm, context: ArmContext, n: int) -> tuple[np.ndarray, np.ndarray]:
    x, label = zip(*arm.sample(context, n), strict=True)
    return np.concatenate(x), np.concatenate(label)


def tstr(
    fake: np.ndarray, label: np.ndarray, real: np.ndarray, truth: np.ndarray, patient: np.ndarray
) -> tuple[float, float, float]:
    """Balanced accuracy of real rows by a logistic regression on ``fake``, with a 95 % interval
    over patients."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, C=0.1))
    called = model.fit(fake, label).predict(real)
    rng, names = np.random.default_rng(0), np.unique(patient)
    rows_of = {name: np.flatnonzero(patient == name) for name in names}

    def score(rows: np.ndarray) -> float:
        n_classes = int(truth.max()) + 1
        return float(balanced_accuracy(confusion_matrix(truth[rows], called[rows], n_classes)))

    drawn = [
        score(np.concatenate([rows_of[name] for name in rng.choice(names, len(names))]))
        for _ in range(400)
    ]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return score(np.arange(len(truth))), float(low), float(high)


def lines(
    storage: Path, slices: str, seconds: float, grids: Path, only: Collection[str] = ()
) -> Iterator[str]:
    """The table's lines, one a generator (of ``only``, if there are any), the real rows first."""
    torch.set_num_threads(1)
    whole = Artifacts(storage).open_store(slices)
    yield (
        "| generator | epochs | CPU s | Fréchet (real halves) | coverage (real) | diversity |"
        " recall | TSTR | near-copies |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    with tempfile.TemporaryDirectory() as name:
        parts = {
            role: smaller(whole.split(role, 0), Path(name) / role)
            for role in ("train", "val", "eval")
        }
        train, held_out = parts["train"], parts["eval"]
        context = ArmContext(train, parts["val"], 0, World.single())
        encoder = encoder_of(EfficientNetLite0Spec(image_size=128))
        encoder.open(train, World.single(), None)

        def encoded(x: torch.Tensor) -> np.ndarray:
            return np.concatenate([encoder.encode(b).numpy() for b in x.float().split(256)])

        real, others = (encoded(rows.read().x) for rows in (train, held_out))
        score = tstr(real, train.labels, others, held_out.labels, held_out.patients)
        yield f"| real training rows | | | | | 1 | | {_interval(score)} | |"
        for title, keys in GENERATORS.items():
            if only and title not in only:
                continue
            try:
                made = make(keys, context, seconds)
            except Exception as error:  # a table with a gap says more than none
                yield f"| {title} | | | {type(error).__name__}: {error} | | | | | |"
                continue
            fake = encoded(torch.from_numpy(made.x))
            found = quality_report(
                real, others, fake,
                train_label=train.labels, heldout_label=held_out.labels, fake_label=made.label,
                train_patients=train.patients, heldout_patients=held_out.patients,
            )  # fmt: skip
            score = tstr(fake, made.label, others, held_out.labels, held_out.patients)
            draw(made, grids / f"{slices[-6:]}-{title.replace(' ', '-').replace(',', '')}.png")
            yield (
                f"| {title} | {made.epochs or ''} | {made.seconds:.0f} "
                f"| {found['fd']:.0f} ({found['fd_null']:.0f}) "
                f"| {found['coverage']:.2f} ({found['coverage_null']:.2f}) "
                f"| {found['diversity']:.2f} | {found['recall']:.2f} | {_interval(score)} "
                f"| {found['near_copy_rate']:.3f} ({found['near_copy_rate_heldout']:.3f}) |"
            )


def _interval(score: tuple[float, float, float]) -> str:
    return "{:.3f} [{:.3f}, {:.3f}]".format(*score)


def draw(made: Made, path: Path) -> None:
    """Eight images of each class, a row a class, in the range of the training rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    for label in np.unique(made.label):
        x = made.x[made.label == label][:8, 0]
        low, high = np.quantile(made.x, [0.005, 0.995])
        rows.append(np.concatenate([*((x - low) / max(high - low, 1e-9)).clip(0, 1)], axis=1))
    grid = (255 * np.concatenate(rows)).astype(np.uint8)
    Image.fromarray(grid).resize((grid.shape[1] * 3, grid.shape[0] * 3), Image.Resampling.NEAREST).save(path)  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("storage", type=Path)
    parser.add_argument("slices")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--grids", type=Path, default=Path("grids"))
    parser.add_argument("--only", action="append", default=[], choices=GENERATORS)
    options = parser.parse_args()
    for line in lines(
        options.storage, options.slices, options.seconds, options.grids, options.only
    ):
        print(line, flush=True)
