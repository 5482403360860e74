"""Training steps against how they are commonly taken, in turns on the same rows.

Parts: ``acgan`` (widths 64, 256, 512), ``dcgan``, ``unet_training``, ``unet_extraction``,
``classifier``, ``fused`` (replicates in shared passes against one after the other, K = 1, 4, 16).

On a CPU everything has one thread and the ratios are of CPU time, which other processes disturb
least: the sweep runs one single-threaded trial per core. On a GPU they are of time on the wall.
The reference step is ``tests/bench/reference_step.py`` of the repository.
"""

from __future__ import annotations

from collections.abc import Callable

from medaug.bench.result import Figure, Options, Result
from medaug.bench.steps_fused import fused_figures
from medaug.bench.steps_gan import acgan_figures, dcgan_figures
from medaug.bench.steps_unet import classifier_figures, extraction_figures, training_figures
from medaug.bench.workbench import Bench, one_thread

PARTS: dict[str, Callable[[Bench], list[Figure]]] = {
    "acgan": acgan_figures,
    "dcgan": dcgan_figures,
    "unet_training": training_figures,
    "unet_extraction": extraction_figures,
    "classifier": classifier_figures,
    "fused": fused_figures,
}


def run(options: Options) -> Result:
    """Measure every part that ``options`` asks for.

    Raises:
        UserError: the reference step is not there, because this is not a checkout.
    """
    with one_thread():
        bench = Bench.here(options)
        figures = [f for name, part in PARTS.items() if options.wants(name) for f in part(bench)]
        return Result("steps", figures, options.size, notes=bench.notes())
