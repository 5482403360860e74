"""One trial: a stage of a study with everything that decides its outcome."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal

from medaug.spec.base import Spec, signature

Stage = Literal["segment", "extract", "generate", "classify"]


class TrialConfig(Spec):
    """A unit of work for one group of DDP ranks; its :attr:`key` names it for ever.

    ``labels`` are for people (leaderboard columns, MLflow tags) and do not enter the key. Nor does
    ``ranks``: global batches are the same for any number of ranks, so a trial may go on with
    another number of them (equal to float tolerance, not bit for bit).
    """

    stage: Stage
    settings: Mapping[str, Any]
    """Those parts of the study that this stage depends on, by their dotted spec names."""
    inputs: Mapping[str, str] = {}
    """Role -> name of the store or model read; names are hashes, so data enters the key."""
    fold: int
    seed: int = 0
    ranks: int = 1
    labels: Mapping[str, Any] = {}

    @cached_property
    def key(self) -> str:
        """Twelve hex digits: the signature of everything that decides the outcome."""
        return signature(self.model_dump(mode="json", exclude={"labels", "ranks"}))

    @property
    def title(self) -> str:
        """For people: ``acgan ngf=64 ndf=64 +1200``, or the stage where there is no arm."""
        labels = dict(self.labels)
        parts = [str(labels.pop("arm", labels.pop("purpose", self.stage)))]
        added, rows = labels.pop("n_synthetic", 0), labels.pop("train_rows", None)
        parts += [f"{key}={value}" for key, value in labels.items() if key not in _IMPLIED]
        parts += [f"+{added}"] if added else []
        parts += [f"of {rows}"] if rows is not None else []
        return " ".join(parts)


_IMPLIED = ("kind", "synthetic", "shares_passes_with")
"""Labels that follow from the arm's name, or say how a trial is run."""
