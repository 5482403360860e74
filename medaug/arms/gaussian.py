"""One Gaussian per class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medaug.arms.base import ArmContext, noise
from medaug.arms.pca import PcaArm
from medaug.spec.arms import GaussianSpec
from medaug.train.checkpoint import Checkpoint, Progress


class GaussianArm(PcaArm):
    """Mean and Ledoit-Wolf covariance (2004) of each class in principal component space, of
    features or, where the study has none, of pixels.

    Hard to beat with few patients: it has no mode to lose and shrinks what it cannot estimate. A
    class with a single row takes the covariance of all classes about their means.
    """

    Config = GaussianSpec
    instant = True
    config: GaussianSpec
    mean: Tensor
    """(K, k) class means of the scores."""
    factor: Tensor
    """(K, k, k) F with F F' the covariance of each."""

    def fit(self, ctx: ArmContext, resume: Checkpoint | None = None) -> Iterator[Progress]:
        from sklearn.covariance import LedoitWolf

        codes = self.enter(ctx)
        x = codes.x.double().cpu().numpy()
        classes = [x[codes.labels == label] for label in range(self.n_classes)]
        mean = np.stack([members.mean(axis=0) for members in classes])
        alone = [len(members) < 2 for members in classes]  # they tell no covariance
        pooled = [self.config.covariance == "pooled" or one for one in alone]
        if any(pooled):
            about = np.concatenate([own - m for own, m in zip(classes, mean, strict=True)])
            shared = _root(LedoitWolf(assume_centered=True).fit(about).covariance_)
        factor = np.stack(
            [
                shared if of_all else _root(LedoitWolf().fit(own).covariance_)
                for own, of_all in zip(classes, pooled, strict=True)
            ]
        )
        self.remarks["classes_with_pooled_covariance"] = float(sum(pooled))
        self.mean, self.factor = (
            torch.from_numpy(a).float().to(codes.x.device) for a in (mean, factor)
        )
        return iter(())

    def scores(self, label: int, index: np.ndarray, seed: int) -> Tensor:
        z = noise(self.mean.shape[1], index, seed, "gaussian", label).to(self.mean.device)
        return torch.addmm(self.mean[label], z, self.factor[label].T)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors, facts = super().state()
        return tensors | {"mean": self.mean, "factor": self.factor}, facts

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        super().restore(tensors, facts)
        self.mean, self.factor = tensors["mean"], tensors["factor"]


def _root(covariance: np.ndarray) -> np.ndarray:
    """F with F F' = covariance, which may be singular (rows that are all alike)."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(values.clip(min=0))
