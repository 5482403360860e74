"""What an arm is: a way to get more rows than the training patients gave.

An arm takes its configuration and an :class:`ArmContext`. It either names training rows to use
again (:class:`ResampleArm`) or makes new ones (:class:`GeneratedArm`). A new arm is one file with
one subclass, and one line in ``medaug.arms.ARMS``.
"""

from __future__ import annotations

import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch

from medaug.errors import UserError
from medaug.seeding import generator
from medaug.spec.classifier import Weighting
from medaug.spec.study import ArmSpec, AugmentSpec
from medaug.store import Store
from medaug.store.sampler import permutation
from medaug.train.checkpoint import Checkpoint, Progress
from medaug.train.world import World

Rows = Iterator[tuple[np.ndarray, np.ndarray]]
"""Chunks of rows: x (n, *shape) float32 in the units of the training rows, label (n,) int64."""

CHUNK_VALUES = 1 << 23
"""Numbers in a chunk of rows, at most (32 MB): what bounds the memory of sampling."""


@dataclass(frozen=True)
class ArmContext:
    """What an arm may look at: one fold's training patients, and its validation patients."""

    train: Store
    val: Store
    seed: int
    world: World
    images: Store | None = None
    """The slices of ``train``, row by row, where the feature is not the image itself."""
    val_images: Store | None = None
    """The slices of ``val``, likewise."""
    encode: Callable[[torch.Tensor], torch.Tensor] | None = None
    """Images (N, C, S, S) to features (N, *shape), where the feature is not the image itself."""
    augment: AugmentSpec = field(default_factory=AugmentSpec)
    given: Store | None = None
    """Rows that another tool has made, for an arm that reads such."""
    pool: Store | None = None
    """Unlabelled rows under the classes that a probe fitted to ``train`` gives them, the surest
    first, for an arm that reads such."""
    pool_images: Store | None = None
    """The slices of ``pool``, row by row, where the feature is not the image itself."""

    def as_images(self) -> ArmContext:
        """The same with the slices themselves as rows."""
        assert self.images is not None
        assert self.val_images is not None
        return replace(
            self,
            train=self.images,
            val=self.val_images,
            images=None,
            val_images=None,
            encode=None,
        )

    def rows_of_class(self, label: int) -> np.ndarray:
        """Row numbers in ``train``; raises UserError when there is none."""
        rows = np.flatnonzero(self.train.labels == label)
        if not len(rows):
            name = self.train.classes[label]
            raise UserError(f"arms: no training row of class {name}; use another split or fold")
        return rows


class Arm(ABC):
    """A configuration, and how it makes a training set larger."""

    Config: ClassVar[type[ArmSpec]]
    synthetic: ClassVar[bool] = True
    """False for the controls, which use real rows or transformed real images."""
    adds_rows: ClassVar[bool] = True
    """False where the training rows stay as they are, whatever else is done about them."""
    adds_held_back: ClassVar[bool] = False
    """Whether it adds real training rows that a small training set has left out."""
    weighting: ClassVar[Weighting | None] = None
    """What the classifier does about classes of unequal size, where the arm says so."""
    needs_images: ClassVar[bool] = False
    """Whether the context must hold ``images`` and ``encode`` when features are not images."""
    makes_images: ClassVar[bool] = False
    """Whether its networks are made for images: where an encoder makes the features, it is trained
    on images and what it makes is encoded."""
    instant: ClassVar[bool] = False
    """Whether it is fitted in well under a second, so that many are run as one."""
    reads_given: ClassVar[bool] = False
    """Whether the context must hold ``given``: its rows come from a file of the user's."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def check_side(self, name: str, rows: int, images: int) -> None:  # noqa: B027 - most take any
        """Of square rows and images, in pixels; ``name`` is what the study calls the arm.

        Raises UserError where the arm cannot make such rows.
        """


class ResampleArm(Arm):
    """Uses training rows again; nothing is written."""

    synthetic = False

    @abstractmethod
    def rows(self, ctx: ArmContext, n: int) -> np.ndarray:
        """Row numbers of ``ctx.train`` to add: (n,) int64, any prefix class-balanced."""


class GeneratedArm(Arm):
    """Makes rows: ``fit`` once, then ``sample``. Row i is the same whatever is drawn besides it."""

    beside_gaussian: ClassVar[bool] = False
    """Whether its rows are compared with those of a Gaussian: of networks, which cost more."""
    portable: ClassVar[bool] = False
    """Whether a saved arm makes rows (``draw``) where no training data are."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.remarks: dict[str, float] = {}
        """Numbers about the last ``sample`` that belong in a trial's scores."""
        self.precision: str | None = None
        """What the last ``fit`` was computed in, where a configuration leaves that open."""

    @property
    def made_from(self) -> str | None:
        """What whoever made its rows says these were made from: ``study_train``, ``public: NAME``
        or ``unknown``. None: the arm was fitted here, which proves it."""
        return None

    def fit(self, ctx: ArmContext, resume: Checkpoint | None = None) -> Iterator[Progress]:
        """Fit to ``ctx.train``, one Progress per epoch (none at all for arms without epochs).

        The fit is complete when the iterator is exhausted. Its last Progress may carry a result,
        which is the arm's own business.
        """
        return iter(())

    @abstractmethod
    def sample(self, ctx: ArmContext, n: int) -> Rows:
        """n rows in chunks; row i has class i mod K, so any prefix is class-balanced.

        Ends early only where the arm cannot make n rows (a filter that lets too few pass); what
        was made stays balanced. All ranks make the same rows.
        """

    def save(self, folder: Path) -> None:
        """Write ``config.json`` and, if something was fitted, ``weights.safetensors``."""
        from safetensors.torch import save_file

        tensors, facts = self.state()
        body = {"arm": self.config.canonical(), "facts": facts}
        (folder / "config.json").write_text(json.dumps(body, indent=1))
        if tensors:
            whole = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
            save_file(whole, folder / "weights.safetensors")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The arm that :meth:`save` wrote, on the CPU."""
        from safetensors.torch import load_file

        body = json.loads((folder / "config.json").read_text())
        arm = cls(cls.Config.model_validate(body["arm"]))
        weights = folder / "weights.safetensors"
        arm.restore(load_file(weights) if weights.exists() else {}, body["facts"])
        return arm

    def state(self) -> tuple[Mapping[str, torch.Tensor], dict[str, Any]]:
        """Everything that was fitted: tensors, and facts as JSON."""
        return {}, {}

    def restore(self, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> None:
        """Take back what :meth:`state` gave."""


class FittedArm(GeneratedArm):
    """A model that makes an endless stream of rows of each class, without training data.

    Row j of class k is a function of the seed, k and j alone. Rows are made in blocks of fixed
    length, because the last bits of a batched product depend on the batch.
    """

    portable = True
    n_classes: int
    shape: tuple[int, ...]

    @abstractmethod
    def block(self, label: int, index: np.ndarray, seed: int) -> torch.Tensor:
        """Rows number ``index`` (n,) of class ``label``: (n, *shape) float32."""

    def stream(self, label: int, seed: int) -> Iterator[np.ndarray]:
        """Rows of a class, in blocks of :attr:`block_rows` (the last may be shorter)."""
        for first in itertools.count(0, self.block_rows):
            block = self.block(label, np.arange(first, first + self.block_rows), seed)
            yield block.float().cpu().numpy()

    @property
    def block_rows(self) -> int:
        """A function of the shape alone."""
        return rows_per_chunk(self.shape, most=64)

    def sample(self, ctx: ArmContext, n: int) -> Rows:
        n_classes = self.n_classes
        streams = [self.stream(label, ctx.seed) for label in range(n_classes)]
        done = 0
        while done < n:
            blocks = [next(stream, None) for stream in streams]
            whole = [block for block in blocks if block is not None]
            if len(whole) < n_classes:
                return
            length = min(map(len, whole))
            # Row i is row i // K of class i mod K.
            x = np.stack([block[:length] for block in whole], axis=1)
            x = x.reshape(-1, *self.shape)[: n - done]
            yield x, np.arange(done, done + len(x)) % n_classes
            done += len(x)
            if length < self.block_rows:
                return

    def draw(self, n: int, label: int, seed: int = 0) -> np.ndarray:
        """n rows of one class, (n, *shape) float32; with a trial's seed, that trial's rows.

        Raises UserError for a class that there is not, or when a filter lets too few pass.
        """
        if not 0 <= label < self.n_classes:
            raise UserError(f"label: {label}; use 0 to {self.n_classes - 1}")
        parts, stream = [np.empty((0, *self.shape), np.float32)], self.stream(label, seed)
        while sum(map(len, parts)) < n and (block := next(stream, None)) is not None:
            parts.append(block)
        rows = np.concatenate(parts)[:n]
        if len(rows) < n:
            raise UserError(f"label {label}: the filter let only {len(rows)} of {n} rows pass")
        return rows


def rows_per_chunk(shape: tuple[int, ...], most: int) -> int:
    """How many rows of ``shape`` make a chunk: ``most``, or fewer where rows are large."""
    return max(1, min(most, CHUNK_VALUES // int(np.prod(shape))))


def chunks(n: int, shape: tuple[int, ...], most: int = 64) -> Iterator[np.ndarray]:
    """0 … n-1 in chunks that fit memory, int64."""
    step = rows_per_chunk(shape, most)
    for first in range(0, n, step):
        yield np.arange(first, min(first + step, n))


def noise(size: int, index: np.ndarray, *parts: int | str) -> torch.Tensor:
    """(n, size) float32 from N(0, 1); row i depends on ``parts`` and index[i] only."""
    rows = [torch.randn(size, generator=generator(*parts, int(i))) for i in index]
    return torch.stack(rows) if rows else torch.empty(0, size)


def balanced_rows(ctx: ArmContext, n: int, *parts: int | str) -> np.ndarray:
    """n training rows, (n,) int64: row i of class i mod K, each class in shuffled rounds.

    Every row of a class comes once before any comes again.
    """
    n_classes = len(ctx.train.classes)
    chosen = np.empty(n, np.int64)
    for label in range(min(n, n_classes)):
        mine = ctx.rows_of_class(label)
        wanted = len(range(label, n, n_classes))
        rounds = range(-(-wanted // len(mine)))
        order = [permutation(len(mine), ctx.seed, *parts, label, r) for r in rounds]
        chosen[label::n_classes] = mine[np.concatenate(order)[:wanted]]
    return chosen


def read(store: Store, rows: np.ndarray) -> torch.Tensor:
    """The given rows (n, *shape) as float32."""
    return store.read(rows).x.float()
