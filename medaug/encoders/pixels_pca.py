"""Grey pixels on their principal components: the plainest encoder there is, fitted in each fold."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from medaug.encoders.base import Encoder
from medaug.encoders.intensity import resized, to_unit
from medaug.errors import UserError
from medaug.spec.encoder import PixelsPcaSpec
from medaug.store import Store
from medaug.train.scaling import rows_per_read


class PixelsPcaEncoder(Encoder):
    """(N, k) scores on at most ``components`` components of ``size`` x ``size`` pixels."""

    Config = PixelsPcaSpec
    fitted = True
    mean: Tensor
    """(size²,) float32."""
    components: Tensor
    """(k, size²) float32, orthonormal, by falling variance; the largest entry of each is > 0."""

    def weights(self) -> dict[str, Any]:
        return {}

    @property
    def lineage(self) -> str:
        return "the fold's training patients"

    def load(self) -> None:
        pass

    def fit(self, train: Store) -> None:
        """Exact, in one pass over the rows and the memory of size² x size² float64.

        Raises:
            UserError: fewer than two rows.
        """
        d = self.config.size**2
        total, products = np.zeros(d), np.zeros((d, d))
        step = rows_per_read(train)
        for first in range(0, len(train), step):
            images = train.read(np.arange(first, min(first + step, len(train)))).x
            x = self._pixels(to_unit(images, self.intensity)).double().cpu().numpy()
            total += x.sum(0)
            products += x.T @ x
        n = len(train)
        if n < 2:
            raise UserError(f"encoder pixels_pca: {n} training rows; it needs two or more")
        mean = total / n
        _, vectors = np.linalg.eigh(products / n - np.outer(mean, mean))  # by rising variance
        k = min(self.config.components, n - 1, d)
        components = vectors.T[::-1][:k]
        largest = np.take_along_axis(components, np.abs(components).argmax(1)[:, None], 1)
        components = components * np.sign(largest)
        self.mean = torch.from_numpy(mean).float().to(self.device)
        self.components = torch.from_numpy(components).float().contiguous().to(self.device)

    @property
    def dim(self) -> int:
        return len(self.components)

    def encode_unit(self, x_NCHW: Tensor) -> Tensor:
        # One by one: in a product of matrices a row's last bits can depend on its place.
        return torch.stack([self.components @ x for x in self._pixels(x_NCHW) - self.mean])

    def _pixels(self, x_NCHW: Tensor) -> Tensor:
        """(N, size²): the mean of the channels, resized."""
        return resized(x_NCHW.mean(1, keepdim=True), self.config.size).flatten(1)
