"""How long this process has waited for rows: a part of where its time went."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TypeVar

T = TypeVar("T")

_waited_s = 0.0


def waited_s() -> float:
    """Seconds that all iterators of :func:`timed` have taken so far."""
    return _waited_s


def timed(source: Iterator[T]) -> Iterator[T]:
    """``source``, with the time that each item takes it counted as waiting."""
    global _waited_s
    while True:
        began = time.perf_counter()
        try:
            item = next(source)
        except StopIteration:
            return
        finally:
            _waited_s += time.perf_counter() - began
        yield item
