"""Flow matching on images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medaug.arms.base import ArmContext, FittedArm, noise
from medaug.arms.probe import probe
from medaug.errors import UserError
from medaug.models.layers import channels_innermost
from medaug.models.velocity_unet import VelocityUNet, coarsest, side_problem
from medaug.spec.arms import FlowImageSpec
from medaug.train.checkpoint import Checkpoint, Progress
from medaug.train.flow import Flow, FlowTask, train_flow
from medaug.train.loop import part
from medaug.train.scaling import FeatureScale


class FlowImageArm(FittedArm):
    """One class-conditional rectified flow for all classes (Lipman et al. 2023; Liu et al. 2023),
    with classifier-free guidance and averaged weights. Under an encoder it works on the images,
    and what it makes is encoded."""

    Config = FlowImageSpec
    config: FlowImageSpec
    beside_gaussian = True
    makes_images = True
    flow: Flow

    def check_side(self, name: str, rows: int, images: int) -> None:
        patch, channels = self.config.patch or 1, self.config.channels
        if rows % (patch * coarsest(channels)):
            raise UserError(f"arms.{name}: {side_problem(rows, patch, channels)}")

    def fit(self, ctx: ArmContext, resume: Checkpoint | None = None) -> Iterator[Progress]:
        self.n_classes, self.shape = len(ctx.train.classes), ctx.train.schema.shape
        if self.shape[1] != self.shape[2]:
            size = f"{self.shape[1]}x{self.shape[2]}"
            raise UserError(f"flow_image: rows are {size}; crop or pad them to a square")
        self.check_side(self.config.kind, self.shape[-1], self.shape[-1])
        for label in range(self.n_classes):
            ctx.rows_of_class(label)
        quality = probe(ctx.train, ctx.val, ctx.world)
        task = FlowTask(self.config, self._network, ctx.train, ctx.seed, quality, resume)
        for progress in train_flow(task, ctx.world):
            if progress.result is not None:
                self.flow = progress.result
                self.precision = self.flow.precision
            yield progress

    def _network(self) -> nn.Module:
        config = self.config
        channels, height, width = self.shape
        return VelocityUNet(
            (channels, height, width),
            self.n_classes,
            config.channels,
            config.blocks,
            config.patch,
        )

    def block(self, label: int, index: np.ndarray, seed: int) -> Tensor:
        device = self.flow.scale.shift.device
        x0 = noise(math.prod(self.shape), index, seed, "flow_image row", label).to(device)
        return self.flow.generate(
            x0.view(-1, *self.shape),
            torch.full((len(index),), label, device=device),
            guidance=self.config.guidance,
            steps=self.config.solver_steps,
        )

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        parts: dict[str, Mapping[str, Tensor]] = {
            "field": self.flow.field.state_dict(),
            "scale": self.flow.scale.tensors(),
        }
        tensors = {f"{name}.{k}": t for name, each in parts.items() for k, t in each.items()}
        return tensors, {"n_classes": self.n_classes, "shape": list(self.shape)}

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        self.n_classes, self.shape = facts["n_classes"], tuple(facts["shape"])
        field = channels_innermost(self._network())  # as in training: kernels round by layout
        field.load_state_dict(part(tensors, "field"))
        self.flow = Flow(field, FeatureScale.of(part(tensors, "scale")), self.n_classes)
