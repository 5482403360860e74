"""Stage ``generate``: an arm and the training rows -> more rows, and how good they are."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from medaug.arms import ArmContext, GeneratedArm, load_arm
from medaug.arms.adversarial import GanArm
from medaug.arms.base import Rows
from medaug.audit.given import of_pictures
from medaug.errors import UserError
from medaug.experiment.names import generator_name, output_name
from medaug.experiment.pool import joined
from medaug.experiment.quality import collapse, extractor_of, quality_of, refuse_copies
from medaug.experiment.rows import arm_context, arm_of
from medaug.spec import GenerateTrial
from medaug.storage.artifacts import Artifacts
from medaug.storage.reading import parse_object
from medaug.storage.results import GenerateResult, TrialResult
from medaug.store import Provenance, Store, StoreWriter
from medaug.train.checkpoint import Checkpoint, Progress
from medaug.train.world import World

ABOUT = "about.json"
"""In a generator's folder: what it was fitted on and how; names patients, so it stays here."""

log = logging.getLogger(__name__)


def generate(
    config: GenerateTrial, world: World, artifacts: Artifacts, resume: Checkpoint | None
) -> Iterator[Progress]:
    """Fit an arm on the fold's training rows, publish it and the rows that it makes; one that is
    there already, because fewer rows were wanted before, only makes rows.

    Rank 0 writes and judges the rows. The others have their result, which says nothing, at once:
    in a collective they would wait for it longer than the collective's timeout allows.
    """
    work = _Work.of(config, world, artifacts)
    if work.is_fitted(resume):
        return work.of_published()
    return work.run(work.arm.fit(work.own, resume), resume)


def generate_together(
    configs: Sequence[GenerateTrial],
    world: World,
    artifacts: Artifacts,
    resumes: Sequence[Checkpoint | None],
) -> list[Iterator[Progress]]:
    """:func:`generate` for replicates that share the passes of their training.

    Raises:
        UserError: they differ in more than seed, fold and inputs, or their arm trains no GAN.
    """
    works = [_Work.of(config, world, artifacts) for config in configs]
    kind = type(works[0].arm)
    if not issubclass(kind, GanArm):
        raise UserError(
            f"{works[0].arm.config.kind}: trains no network that replicates could share"
        )
    new = [i for i, resume in enumerate(resumes) if not works[i].is_fitted(resume)]
    arms, contexts = [works[i].arm for i in new], [works[i].own for i in new]
    fits: dict[int, Iterator[Progress]] = {}
    if new:
        together = kind.fit_together(arms, contexts, [resumes[i] for i in new])  # type: ignore[arg-type]
        fits = dict(zip(new, together, strict=True))
    return [
        work.run(fits[i], resume) if i in fits else work.of_published()
        for i, (work, resume) in enumerate(zip(works, resumes, strict=True))
    ]


@dataclass(frozen=True)
class _Work:
    """One trial of this stage, ready to be run."""

    config: GenerateTrial
    features: Store
    arm: GeneratedArm
    context: ArmContext
    artifacts: Artifacts

    @staticmethod
    def of(config: GenerateTrial, world: World, artifacts: Artifacts) -> _Work:
        features = artifacts.open_store(config.features)
        arm = arm_of(config.maker)
        assert isinstance(arm, GeneratedArm)
        context = arm_context(config, features, world, artifacts)
        return _Work(config, features, arm, context, artifacts)

    @cached_property
    def own(self) -> ArmContext:
        """What the arm itself works on: images, where it makes such and an encoder makes features
        of them."""
        context = self.context
        if self.arm.config.reads_pool and self.arm.synthetic:
            context = joined(context)
        return context.as_images() if self.makes_images else context

    @property
    def makes_images(self) -> bool:
        """Whether what the arm makes is still to be encoded."""
        return self.arm.makes_images and self.config.encoder is not None

    @property
    def fitted_on(self) -> list[str]:
        """The patients that the arm has seen, as far as anybody knows."""
        if self.arm.made_from not in (None, "study_train"):
            return []
        pool = self.context.pool
        units = [self.context.train.units, *([] if pool is None else [pool.units])]
        return sorted({unit for each in units for unit in each.tolist()})

    def rows(self) -> Rows:
        """What the arm makes, as rows of the store."""
        for x, label in self.arm.sample(self.own, self.config.n):
            if self.makes_images:
                assert self.context.encode is not None
                images = torch.from_numpy(x).to(self.context.world.device)
                x = self.context.encode(images).float().cpu().numpy()
            yield x, label

    def is_fitted(self, resume: Checkpoint | None) -> bool:
        """Whether its generator is there; a trial that has begun to train goes on with its own."""
        return resume is None and self.artifacts.has_model(generator_name(self.config))

    def of_published(self) -> Iterator[Progress]:
        """The rows of the arm that was fitted before, on the CPU."""
        folder = self.artifacts.verified_model(generator_name(self.config))
        about = parse_object((folder / ABOUT).read_bytes(), str(folder / ABOUT))
        arm = load_arm(folder)
        arm.precision = about.get("precision")
        return replace(self, arm=arm).run(iter(()), None, about.get("history", ()))

    def run(
        self,
        fit: Iterator[Progress],
        resume: Checkpoint | None,
        before: Sequence[Mapping[str, float]] = (),
    ) -> Iterator[Progress]:
        """The epochs of ``fit``, and then the rows; ``before``: the metrics of epochs that are no
        part of it."""
        progress = Progress(0, {})
        history = list(resume.state.get("history", ()) if resume else before)
        for progress in fit:
            if resume is None or progress.epoch > resume.epoch:
                history.append(progress.metrics)
            yield replace(progress, result=None, save=progress.result is not None)
        epoch = progress.epoch + 1
        if not self.context.world.is_main:
            yield Progress(epoch, {}, result=TrialResult())
            return
        _write_rows(self, history)
        rows = self.artifacts.open_store(output_name(self.config))
        synthetic = self.arm.synthetic
        scores = quality_of(rows, self.context, floor=self.arm.beside_gaussian) if synthetic else {}
        if self.context.given is not None and not of_pictures(self.context.given):
            refuse_copies(rows, self.config, self.context, self.features)
        if collapsed := collapse(scores):
            log.warning("%s: its rows have collapsed: %s", self.config.title, collapsed)
        result = GenerateResult(
            output=rows.name,
            generator=generator_name(self.config),
            n=len(rows),
            precision=self.arm.precision,
            collapsed=collapsed,
            scores=scores | rows.manifest["extra"]["remarks"],
            extractor=extractor_of(self.features)[0] if synthetic else None,
            history=tuple(history),
        )
        yield Progress(epoch, scores, result=result)


def _write_rows(work: _Work, history: Sequence[Mapping[str, float]]) -> None:
    config, arm, features, artifacts = work.config, work.arm, work.features, work.artifacts
    about = {
        "arm": arm.config.canonical(),
        "classes": list(features.classes),
        "shape": list(work.own.train.schema.shape),
        "fitted_on": work.fitted_on,
        "parents": list(config.inputs),
        "precision": arm.precision,
        "history": list(history),
    }

    def write(folder: Path) -> None:
        arm.save(folder)
        (folder / ABOUT).write_text(json.dumps(about, indent=1))

    artifacts.publish_model(generator_name(config), write)
    provenance = Provenance(
        stage="generate",
        config=config.key,
        parents=(*config.inputs, generator_name(config)),
        fitted_on=tuple(about["fitted_on"]),
        synthetic=arm.synthetic,
        encoder=features.provenance.encoder,
    )
    # Where real rows have masks, generated ones have empty ones: rows of a training set are alike.
    mask_shape = features.schema.mask_shape
    with StoreWriter(
        artifacts.store_path(output_name(config)),
        features.schema,
        provenance=provenance,
        classes=features.classes,
        splits=features.splits,
        extra={"remarks": {}, **({"made_from": arm.made_from} if arm.made_from else {})},
    ) as writer:
        written, skip = 0, writer.rows_done
        for x, label in work.rows():
            fresh = slice(max(0, skip - written), None)
            written += len(label)
            if written > skip:
                writer.write(
                    x[fresh],
                    label=label[fresh],
                    patient="",
                    volume=generator_name(config),
                    slice_index=-1,
                    mask=np.zeros((len(x[fresh]), *mask_shape), np.uint8) if mask_shape else None,
                )
        writer.extra["remarks"] = arm.remarks
    artifacts.share_store(output_name(config))
