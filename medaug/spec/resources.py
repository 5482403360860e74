"""The section ``resources`` of a study: what a trial holds, and how it is looked after."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from medaug.spec.base import Positive, PositiveFloat, Spec


class ResourceSpec(Spec):
    """What one trial holds: a placement group of ``ranks`` DDP ranks."""

    ranks: Positive = 1
    cpus_per_rank: PositiveFloat = 1.0
    gpus_per_rank: Annotated[float, Field(ge=0)] | Literal["auto"] = "auto"
    """``auto``: one GPU a rank where the cluster has GPUs that torch can use, none otherwise. A
    part of one (0.25) lets several trials share it."""
    strategy: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] = "PACK"
    hang_timeout_s: PositiveFloat = 120.0
    max_failures: Annotated[int, Field(ge=0)] = 2
    """Tries that one epoch of a trial may fail before the trial does; lost nodes do not count."""
    checkpoint_every_s: Annotated[float, Field(ge=0)] | Literal["auto"] = "auto"
    """A finished epoch is saved before the last saved one is so many seconds old, and at a trial's
    end or stop; 0: every epoch. ``auto``: by what a save costs, at most 30
    (:func:`medaug.spec.saving.save_interval_s`). A trial that is killed loses that much, or the
    epoch it was in if that is longer."""
    keep_classifiers: bool = False
    """Keep the weights of trained networks, for `medaug score` and `predict` on scans of others; a
    ResNet-50 takes 377 MB a trial. They are kept in any case where a test set is sealed or the
    table has a part ``external``; linear classifiers are solved again."""
    deterministic: bool = False
    """On GPUs only algorithms that give the same bits again, and whole float32 instead of TF32;
    slower. On CPUs results are repeatable in any case."""
    step_graphs: Literal["auto", "always", "never"] = "auto"
    """On a GPU a GAN's step is recorded once as a CUDA graph and replayed, with the same numbers,
    where its rows lie on the GPU and it has one rank; ``always``: with several, too, and a failed
    recording fails the trial. On CPUs there is nothing to record."""
    max_concurrent: Positive | None = None
    budget_hours: PositiveFloat | None = None
    """Device-hours that the run may hold in all, over all its drivers: those of GPUs where ranks
    have any, else of CPU ranks. When they are spent it stops as after a signal (exit 75), and
    ``medaug resume NAME --set resources.budget_hours=…`` goes on."""
    replicates: Literal["separate", "fused"] = "separate"
    """``fused``: seeds and folds of one GAN configuration are trained in shared passes, up to 16 on
    one rank, with equal results up to rounding. Pays on GPUs, which one small network leaves idle;
    a CPU is filled better by separate trials side by side."""

    @property
    def gpus(self) -> float:
        """GPUs of a rank; none as long as no cluster has settled ``auto``."""
        return 0.0 if self.gpus_per_rank == "auto" else self.gpus_per_rank

    @model_validator(mode="after")
    def _replicates_share_a_rank(self) -> ResourceSpec:
        if self.replicates == "fused" and self.ranks > 1:
            raise ValueError("fused replicates share one rank: set ranks to 1")
        return self

    @model_validator(mode="after")
    def _one_gpu_per_rank(self) -> ResourceSpec:
        if self.gpus_per_rank == "auto":
            return self
        if self.ranks > 1 and 0 < self.gpus_per_rank < 1:
            raise ValueError("NCCL refuses two ranks on one GPU: gpus_per_rank must be 1")
        if self.gpus_per_rank > 1:
            raise ValueError(
                f"gpus_per_rank {self.gpus_per_rank:g}: a rank computes on one GPU; set it to 1, "
                "and ranks to the number of GPUs"
            )
        return self
