"""Benchmarks: what medaug does next to what others do, in one interleaved run.

``medaug bench store|steps|ddp|sweep|first``; where only torch, pyarrow, numpy and pydantic are
installed, ``python -m medaug.bench …`` is the same. A benchmark measures medaug and its peers in
turn, in the same process or in the same minutes, and reports ratios: on a shared machine seconds
mean little, and a ratio of neighbours in time means a lot.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping

from medaug.bench.result import Options, Result
from medaug.errors import UserError

BENCHES: Mapping[str, str] = {
    "store": "medaug.bench.store:run",
    "steps": "medaug.bench.steps:run",
    "ddp": "medaug.bench.ddp:run",
    "gpu": "medaug.bench.gpu:run",
    "sweep": "medaug.bench.sweep:run",
    "first": "medaug.bench.first:run",
}
"""Where each benchmark's ``run(options) -> Result`` lives. Imported when asked for: the store's
and the steps' need neither Ray nor MLflow, and a bare GPU machine has neither."""


def find_bench(name: str) -> Callable[[Options], Result]:
    """The benchmark ``name``, ready to be run. Raises UserError when there is none."""
    if name not in BENCHES:
        raise UserError(f"benchmark '{name}': there is none; use one of {', '.join(BENCHES)}")
    module, function = BENCHES[name].split(":")
    run: Callable[[Options], Result] = getattr(importlib.import_module(module), function)
    return run


__all__ = ["BENCHES", "Options", "Result", "find_bench"]
