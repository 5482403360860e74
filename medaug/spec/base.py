"""The base of every configuration type, and the identity of a configuration."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0)]

Precision = Literal["auto", "fp32", "bf16"]
"""What products and convolutions are computed in; weights are float32 in any case. ``auto``:
bfloat16 where the node is faster with it (:mod:`medaug.train.precision`); GPUs that only emulate
it (T4, V100) have float16 in its place."""


class Spec(BaseModel):
    """A frozen configuration record: unknown keys and non-finite numbers are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def canonical(self) -> dict[str, Any]:
        """The record as plain JSON types, defaults included."""
        return self.model_dump(mode="json")

    def signature(self) -> str:
        """Twelve hex digits that name this configuration (see :func:`signature`)."""
        return signature(self.canonical())


def signature(value: Mapping[str, Any]) -> str:
    """First 12 hex digits of the SHA-256 of ``value`` as canonical JSON.

    Canonical: sorted keys, no spaces, no NaN. Two configurations with equal content have the
    same signature on every machine, which is what names trials, stores and models.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
