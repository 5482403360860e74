"""Scans without a class: what an arm may make of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from medaug.arms import ArmContext
from medaug.errors import UserError
from medaug.metrics.classification import predict
from medaug.spec import ProbeSpec
from medaug.store import Store
from medaug.train.flat_rows import FlatRows
from medaug.train.linear import fit_linear


def with_pool(context: ArmContext, pool: Store, images: Store | None) -> ArmContext:
    """``context`` with the ``pool`` as a probe sees it that is fitted to the training rows.

    ``images``: the slices of the pool, row by row, where the rows are features.
    """
    probability, labels = _called(context, pool)
    surest = np.argsort(-probability[np.arange(len(labels)), labels], kind="stable")
    known = pool.labelled(labels).select(surest)
    return replace(context, pool=known, pool_images=_beside(images, labels, surest))


def joined(context: ArmContext) -> ArmContext:
    """``context`` with the pool's rows among the training rows, under the classes that they got.

    Raises:
        UserError: the pool's rows are of another kind.
    """
    assert context.pool is not None
    train, images = Store.concat(context.train, context.pool), context.images
    if images is not None:
        assert context.pool_images is not None
        images = Store.concat(images, context.pool_images)
    return replace(context, train=train, images=images)


def _called(context: ArmContext, pool: Store) -> tuple[np.ndarray, np.ndarray]:
    """Class probabilities (n, K) and the classes (n,) int64 that are called."""
    if pool.schema.shape != context.train.schema.shape:
        raise UserError(
            f"pool: its rows are {pool.schema.shape}, the study's {context.train.schema.shape}; "
            "bring scans of the same kind"
        )
    real, val = FlatRows.of(context.train), FlatRows.of(context.val)
    probe = fit_linear(ProbeSpec(), real, None, val)
    probability = probe.probability(FlatRows.of(pool).x)
    return probability, predict(probability, probe.threshold).astype(np.int64)


def _beside(images: Store | None, labels: np.ndarray, order: np.ndarray) -> Store | None:
    return None if images is None else images.labelled(labels).select(order)
