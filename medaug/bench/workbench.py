"""What the benchmarks of training steps share: the device, how to time on it, its peak."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch.utils.flop_counter import FlopCounterMode

import medaug
from medaug.bench.result import Options
from medaug.bench.timing import Spread, Timing, interleaved
from medaug.errors import UserError
from medaug.train.allocator import keep_freed_memory
from medaug.train.precision import hopeless
from medaug.train.world import World

REFERENCE = Path(medaug.__file__).parents[1] / "tests" / "bench" / "reference_step.py"
PEAK_SIDE = {"cpu": 1024, "cuda": 8192}
"""Of the square bf16 matrices whose product is called the device's peak."""


@dataclass(frozen=True)
class Bench:
    """Where steps are measured, and how often."""

    options: Options
    world: World

    @staticmethod
    def here(options: Options) -> Bench:
        device = torch.device("cuda", 0) if torch.cuda.is_available() else "cpu"
        return Bench(options, World.single(device))

    @property
    def on_gpu(self) -> bool:
        return self.world.device.type == "cuda"

    @property
    def tiny(self) -> bool:
        return self.options.size == "tiny"

    def sized(self, full: Any, quick: Any, tiny: Any) -> Any:
        """What fits the size that was asked for."""
        return {"full": full, "quick": quick, "tiny": tiny}[self.options.size]

    def time(self, subjects: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Timing]:
        """Interleaved, after one round to warm up (more on a GPU, which compiles)."""
        synchronise = torch.cuda.synchronize if self.on_gpu else None
        warm_up = 5 if self.on_gpu else 1
        return interleaved(subjects, rounds, warm_up=warm_up, synchronise=synchronise)

    def ratio(self, own: Timing, baseline: Timing) -> Spread:
        return own.speed_wall(baseline) if self.on_gpu else own.speed_cpu(baseline)

    def seconds(self, timing: Timing) -> float:
        """The median."""
        return (timing.wall if self.on_gpu else timing.cpu).median

    @cached_property
    def narrow(self) -> Literal["bf16", "fp32"]:
        """The precision of our steps: bf16, but float32 on a processor where a bf16 product takes
        many times as long and a benchmark would not end."""
        return "fp32" if hopeless(self.world.device) else "bf16"

    @cached_property
    def peak_flops(self) -> float:
        """Operations per second of a large bf16 product here and now."""
        side = 64 if self.tiny else PEAK_SIDE[self.world.device.type]
        a, b = (torch.randn(side, side, device=self.world.device).bfloat16() for _ in range(2))
        timing = self.time({"product": lambda: a @ b}, rounds=5)["product"]
        return 2 * side**3 / max(self.seconds(timing), 1e-9)

    def flops(self, step: Callable[[], object]) -> int:
        """Operations of the products and convolutions of one ``step``, forward and backward."""
        with FlopCounterMode(display=False) as counter:
            step()
        return counter.get_total_flops()

    def notes(self) -> list[str]:
        if self.on_gpu:
            return ["ratios are of time on the wall"]
        return [
            "one thread; ratios and seconds are of CPU time, over neighbouring pairs",
            "freed memory is kept (medaug.train.allocator) for ours and for the reference alike",
        ]


@contextmanager
def one_thread() -> Iterator[None]:
    """What a rank of the sweep has, unless it is given more CPUs; its allocator, too."""
    threads = torch.get_num_threads()
    keep_freed_memory()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def reference_step() -> Any:
    """The class ``ReferenceStep`` of the repository's tests."""
    if not REFERENCE.is_file():
        raise UserError(
            f"{REFERENCE}: not there; the reference step is a part of the repository, run "
            "`python -m medaug.bench steps` in a checkout"
        )
    spec = importlib.util.spec_from_file_location("reference_step", REFERENCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ReferenceStep
