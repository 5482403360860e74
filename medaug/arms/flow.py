"""Flow matching in principal component space."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medaug.arms.base import ArmContext, noise
from medaug.arms.pca import PcaArm
from medaug.arms.probe import probe
from medaug.models.flow_matching import follow_field, velocity_loss, without_class
from medaug.models.mlp import VelocityMlp
from medaug.seeding import generator, seed_of
from medaug.spec.arms import FlowSpec
from medaug.store import balanced_weights
from medaug.store.sampler import epoch_batches
from medaug.train.average import follow
from medaug.train.checkpoint import Checkpoint, Progress
from medaug.train.loop import Guard, Training, part, run_epochs
from medaug.train.resident import ResidentRows, epoch_rows
from medaug.train.rows import MemoryRows
from medaug.train.scaling import FeatureScale
from medaug.train.tally import Tally
from medaug.train.world import World


class FlowArm(PcaArm):
    """Conditional flow matching with straight paths (Lipman et al. 2023; Liu et al. 2023).

    The network learns the velocity from noise to standardised scores
    (:mod:`medaug.models.flow_matching`). It is so small that every rank trains all of it.
    """

    Config = FlowSpec
    config: FlowSpec
    beside_gaussian = True
    field: VelocityMlp
    """Averaged weights, from which rows are made."""
    scale: FeatureScale

    def fit(self, ctx: ArmContext, resume: Checkpoint | None = None) -> Iterator[Progress]:
        alone = World.single(ctx.world.device)
        codes = self.enter(ctx)
        self.scale = FeatureScale.fit(codes, "standardise", alone)
        torch.manual_seed(seed_of(ctx.seed, "flow"))
        learner, self.field = (self._network(len(codes.x[0]), alone.device) for _ in range(2))
        self.field.load_state_dict(learner.state_dict())
        adam = torch.optim.Adam(learner.parameters(), lr=self.config.lr, fused=True)
        training = Training({"learner": learner, "field": self.field}, {"adam": adam}, Guard(alone))
        if resume is not None:
            training.restore(resume)
        self._probe = probe(ctx.train, ctx.val, alone)
        scaled = self.scale.encode(codes.x.to(alone.device))
        rows = ResidentRows(scaled), torch.from_numpy(codes.labels).to(alone.device)
        one_epoch = partial(self._epoch, training, codes, rows, alone, ctx.seed)
        return run_epochs(training, alone, ctx.seed, self.config.epochs, one_epoch, lambda: self)

    def _epoch(
        self,
        training: Training,
        codes: MemoryRows,
        kept: tuple[ResidentRows, Tensor],
        world: World,
        seed: int,
        epoch: int,
    ) -> dict[str, float]:
        tally = Tally(world)
        learner, adam = training.modules["learner"], training.optimizers["adam"]
        plan = epoch_batches(
            len(codes),
            self.config.batch_size,
            seed=seed,
            epoch=epoch,
            weights=balanced_weights(codes.labels),
            steps=self.config.steps_per_epoch,
        )
        for rows in epoch_rows(plan, slice(None), world.device):
            source = generator(seed, "flow", training.step, device=world.device)
            random = partial(torch.rand, generator=source, device=world.device)
            x1 = kept[0].take(rows)
            x0 = torch.empty_like(x1).normal_(generator=source)
            t, hidden = random(len(x1)), random(len(x1)) < self.config.drop_label
            label = without_class(kept[1].index_select(0, rows), hidden, self.n_classes)
            loss = velocity_loss(learner, x0, x1, t, label)
            adam.zero_grad(set_to_none=True)
            loss.backward()
            tally.add({"train/loss": loss}, len(x1), training.guard.step(adam))
            follow([self.field], [learner], self.config.ema)
            training.step += 1
        metrics = tally.means()
        due = (epoch + 1) % self.config.eval_every == 0 or epoch + 1 == self.config.epochs
        if self._probe is not None and due and all(map(math.isfinite, metrics.values())):
            metrics |= self._probe.judge(partial(self.block, seed=seed))
        return metrics

    def _network(self, dim: int, device: torch.device) -> VelocityMlp:
        config = self.config
        return VelocityMlp(dim, self.n_classes, config.hidden, config.depth).to(device)

    def scores(self, label: int, index: np.ndarray, seed: int) -> Tensor:
        device, config = self.space.mean.device, self.config
        x0 = noise(len(self.space.components), index, seed, "flow row", label).to(device)
        labels = torch.full((len(x0),), label, device=device)
        x = follow_field(
            *(self.field, x0, labels, self.n_classes),
            guidance=config.guidance,
            steps=config.solver_steps,
        )
        return self.scale.decode(x)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors, facts = super().state()
        field = {f"field.{name}": tensor for name, tensor in self.field.state_dict().items()}
        scale = {f"scale.{name}": tensor for name, tensor in self.scale.tensors().items()}
        return tensors | field | scale, facts

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        super().restore(tensors, facts)
        self.field = self._network(len(self.space.components), self.space.mean.device)
        self.field.load_state_dict(part(tensors, "field"))
        self.scale = FeatureScale.of(part(tensors, "scale"))
