"""A trained generator on its own, without the data it was trained on: for notebooks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medaug.arms import FittedArm, load_arm
from medaug.errors import IntegrityError, UserError
from medaug.experiment import generator_name
from medaug.ownership.seals import check_run
from medaug.results.leaderboard import leaderboard_of
from medaug.storage.artifacts import Artifacts
from medaug.storage.manifest import MANIFEST, verified
from medaug.storage.reading import parse_object
from medaug.storage.run_folder import run_in
from medaug.tracking.generators import best_generator

ABOUT, CARD = "about.json", "card.json"
"""What describes a generator in a run's storage, and one that was exported."""


@dataclass(frozen=True, eq=False)
class Generator:
    """Makes rows of each class: U-Net features or images, as the study's rows are."""

    arm: FittedArm
    classes: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row: (C, H, W)."""
        return tuple(self.arm.shape)

    def sample(self, n: int, label: int | str, seed: int = 0) -> np.ndarray:
        """n rows of a class, (n, *shape) float32, in the units of the study's rows.

        ``label`` is a class by name or number. Row i depends on ``label``, ``seed`` and i alone.

        Raises:
            UserError: no such class, or the generator's own filter lets too few rows pass.
        """
        if isinstance(label, str):
            if label not in self.classes:
                raise UserError(f"label: '{label}'; use one of {', '.join(self.classes)}")
            label = self.classes.index(label)
        return self.arm.draw(n, label, seed)

    def __repr__(self) -> str:
        kind = self.arm.config.kind
        return f"<Generator {kind}: rows {self.shape} of {', '.join(self.classes)}>"


def find_generator(name: Path, storage: Path) -> Generator:
    """The generator that ``name`` means: the folder of an exported one, a run in ``storage`` (its
    best-placed generator), or a model there, ``generator-…``.

    Raises:
        UserError: there is no such generator, or it makes rows beside its training data only.
        IntegrityError: a file is not what was written.
    """
    artifacts = Artifacts(storage)
    if (name / MANIFEST).is_file():
        folder = verified(name, "export the generator again")
    elif artifacts.has_model(str(name)):
        folder = artifacts.verified_model(str(name))
    else:
        folder = artifacts.verified_model(_of_run(run_in(storage, str(name))))
    arm = load_arm(folder)
    if not isinstance(arm, FittedArm) or not arm.portable:
        raise UserError(f"{name}: {arm.config.kind} makes rows beside its training data only")
    about = folder / ABOUT if (folder / ABOUT).exists() else folder / CARD
    return Generator(arm, _classes(about))


def _classes(about: Path) -> tuple[str, ...]:
    body = parse_object(about.read_bytes(), str(about))
    if not isinstance(body.get("classes"), list):
        raise IntegrityError(f"{about}: names no classes; run the study, or export it, again")
    return tuple(map(str, body["classes"]))


def _of_run(folder: Path) -> str:
    """The name of the best-placed generator of the run in ``folder``, which is checked first."""
    if (folder / "study.json").exists():
        check_run(folder, made=True)
    if (best := best_generator(folder, leaderboard_of(folder))) is None:
        raise UserError(f"{folder.name}: no arm of this run has left a generator of its own")
    return generator_name(best[1].config)
