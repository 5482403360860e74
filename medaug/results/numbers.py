"""Numbers as leaderboards and reports write them."""

from __future__ import annotations

import math


def with_interval(value: float, low: float, high: float, *, signed: bool = False) -> str:
    """``0.612 [0.551, 0.673]``; nothing where there is no value."""
    if not math.isfinite(value):
        return ""
    form = "+.3f" if signed else ".3f"
    text = format(value, form)
    if math.isfinite(low) and math.isfinite(high):
        text += f" [{low:{form}}, {high:{form}}]"
    return text.replace("-", "−")


def share(value: float | None) -> str:
    """``0.61``; nothing where there is no value."""
    if value is None or not math.isfinite(value):
        return ""
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−")  # + 0.0: never -0.00
