"""A conditional Wasserstein GAN of principal component scores, after f-CLSWGAN."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medaug.arms.adversarial import gan_of, gan_tensors, latents
from medaug.arms.base import ArmContext
from medaug.arms.pca import PcaArm
from medaug.arms.probe import probe
from medaug.models.mlp import MlpCritic, MlpGenerator
from medaug.spec.arms import WganGpSpec
from medaug.train.checkpoint import Checkpoint, Progress
from medaug.train.gan import Gan, GanTask, train_gan
from medaug.train.rows import MemoryRows
from medaug.train.scaling import FeatureScale


class WganGpArm(PcaArm):
    """Gulrajani et al. 2017 on vectors; critic and generator are told the class."""

    Config = WganGpSpec
    config: WganGpSpec
    beside_gaussian = True
    gan: Gan

    def fit(self, ctx: ArmContext, resume: Checkpoint | None = None) -> Iterator[Progress]:
        codes = self.enter(ctx)
        quality = probe(ctx.train, ctx.val, ctx.world, self.space.decode)
        teacher = self._teacher(codes, ctx)
        task = GanTask(self.config, self._networks, codes, ctx.seed, quality, teacher, resume)
        for progress in train_gan(task, ctx.world):
            if progress.result is not None:
                self.gan = progress.result
                self.precision = self.gan.precision
            yield progress

    def _networks(self) -> tuple[nn.Module, nn.Module]:
        dim, hidden = len(self.space.components), self.config.hidden
        generator = MlpGenerator(dim, self.n_classes, self.config.nz, hidden)
        return generator, MlpCritic(dim, self.n_classes, hidden)

    def _teacher(self, codes: MemoryRows, ctx: ArmContext) -> nn.Module:
        """Logistic regression on the scaled scores, as a frozen layer of logits."""
        from sklearn.linear_model import LogisticRegression

        scale = FeatureScale.fit(codes, self.config.feature_scale, ctx.world)
        x = scale.encode(codes.x).cpu().numpy()
        model = LogisticRegression(max_iter=1000).fit(x, codes.labels)
        weight, bias = torch.from_numpy(model.coef_), torch.from_numpy(model.intercept_)
        if len(weight) == 1:  # two classes: one logit, for the second
            weight = torch.cat([torch.zeros_like(weight), weight])
            bias = torch.cat([torch.zeros_like(bias), bias])
        layer = nn.Linear(weight.shape[1], weight.shape[0])
        layer.load_state_dict({"weight": weight, "bias": bias})
        return layer.requires_grad_(False).to(ctx.world.device)

    def scores(self, label: int, index: np.ndarray, seed: int) -> Tensor:
        return self.gan.generate(*latents(self.gan, label, index, seed))

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors, facts = super().state()
        return tensors | gan_tensors(self.gan, discriminator=False), facts

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        super().restore(tensors, facts)
        self.gan = gan_of(tensors, self._networks)
