"""Any classifier: trained on real rows and the rows that an arm adds, kept, and used.

A network is trained epoch by epoch, a linear classifier in one go; what comes out is a
:class:`Classifier` either way.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch

from medaug.spec.classifier import ClassifierSpec, LinearSpec, NetworkSpec
from medaug.store import Store
from medaug.train.checkpoint import Checkpoint, Progress
from medaug.train.flat_rows import FlatRows
from medaug.train.linear import LinearClassifier, fit_linear
from medaug.train.network import network_of, train_network
from medaug.train.world import World


class Classifier(Protocol):
    """A trained classifier."""

    @property
    def spec(self) -> ClassifierSpec: ...

    @property
    def n_classes(self) -> int: ...

    @property
    def threshold(self) -> float:
        """From this probability on a row is positive (the last of two classes)."""
        ...

    @property
    def best_epoch(self) -> int:
        """Counted from 1."""
        ...

    @property
    def scores(self) -> dict[str, float]:
        """What is known of it from the validation rows."""
        ...

    @property
    def history(self) -> list[dict[str, float]]:
        """Metrics of each epoch."""
        ...

    def predict(self, rows: Store, world: World) -> np.ndarray:
        """Class probabilities (n, K) float32 of ``rows``, in order, on every rank."""
        ...


def train_classifier(
    spec: ClassifierSpec,
    real: Store,
    added: Store | None,
    val: Store,
    world: World,
    seed: int,
    *,
    only_added: bool = False,
    steps_per_epoch: int | None = None,
    refit: bool = False,
    resume: Checkpoint | None = None,
) -> Iterator[Progress]:
    """Train on ``real`` and ``added`` rows; the last Progress carries a :class:`Classifier`.

    See :func:`medaug.train.network.train_network` and :func:`medaug.train.linear.fit_linear`. A
    linear classifier has one epoch, no use for ``seed`` and ``steps_per_epoch``, and is fitted by
    every rank alike; a network has no use for ``refit``.

    Raises:
        UserError: no rows, rows without a label, a class without rows, or settings that do not fit.
        Diverged: a network, see :class:`medaug.train.loop.Guard`.
    """
    if isinstance(spec, NetworkSpec):
        yield from train_network(
            *(spec, real, added, val, world, seed),
            only_added=only_added,
            steps_per_epoch=steps_per_epoch,
            resume=resume,
        )
        return
    assert isinstance(spec, LinearSpec)
    if resume is not None:
        found = _linear_of(resume)
        yield Progress(1, dict(found.scores), None, found)
        return
    more = None if added is None else FlatRows.of(added, spec.pool)
    found = fit_linear(
        *(spec, FlatRows.of(real, spec.pool), more, FlatRows.of(val, spec.pool)),
        only_added=only_added,
        refit=refit,
    )
    tensors = {name: torch.from_numpy(each) for name, each in found.tensors().items()}
    yield Progress(1, dict(found.scores), Checkpoint(1, 0, tensors, found.facts()), found)


def classifier_of(
    checkpoint: Checkpoint,
    spec: ClassifierSpec,
    shape: tuple[int, ...],
    n_classes: int,
    *,
    threshold: float,
) -> Classifier:
    """The classifier that a training's last ``checkpoint`` holds.

    A network's threshold is no part of it; a finished trial's result has it.
    """
    if isinstance(spec, NetworkSpec):
        return network_of(checkpoint, spec, shape, n_classes, threshold=threshold)
    return _linear_of(checkpoint)


def _linear_of(checkpoint: Checkpoint) -> LinearClassifier:
    arrays = {name: tensor.cpu().numpy() for name, tensor in checkpoint.tensors.items()}
    return LinearClassifier.of(arrays, checkpoint.state)
