"""Replicates in shared passes against the same replicates one after the other."""

from __future__ import annotations

from medaug.arms.acgan import AcganSpec
from medaug.bench.result import Figure
from medaug.bench.steps_gan import BATCH, Ours, acgan_pair, random_rows
from medaug.bench.workbench import Bench

REPLICATES = (1, 4, 16)
EQUAL_STEPS = 4
EQUAL = 1e-5
"""Largest difference of any weight after so many steps in float32."""


def fused_figures(bench: Bench) -> list[Figure]:
    """Time per replicate and step, and the largest difference of a weight, for each K."""
    figures = []
    for k in REPLICATES:
        figures.append(_speed(bench, k))
        figures.append(_difference(bench, k))
    return figures


def _ours(bench: Bench, k: int, precision: str, seeds: range) -> Ours:
    shape = bench.sized((1024, 15, 15), (256, 15, 15), (8, 8, 8))
    width = bench.sized(64, 64, 4)
    spec = AcganSpec(batch_size=BATCH, precision=precision, width_rule="flat")  # type: ignore[arg-type]
    build = acgan_pair(shape, width, "sn", "flat", dropout=0.0)
    rows = [random_rows(shape, 2 * BATCH, seed) for seed in seeds]
    return Ours(spec, build, rows, bench.world, seeds=seeds)


def _speed(bench: Bench, k: int) -> Figure:
    precision = "bf16"
    fused = _ours(bench, k, precision, range(k))
    alone = [_ours(bench, 1, precision, range(seed, seed + 1)) for seed in range(k)]

    def in_turn() -> None:
        for one in alone:
            one()

    rounds = bench.sized(9, max(2, 8 // k), 1)
    timing = bench.time({"fused": fused, "separate": in_turn}, rounds)
    return Figure(
        part=f"fused K={k}",
        subject=f"fused {precision}",
        value=1e3 * bench.seconds(timing["fused"]) / k,
        unit="ms/step of one",
        ratio=bench.ratio(timing["fused"], timing["separate"]),
        against="separate, in turn",
    )


def _difference(bench: Bench, k: int) -> Figure:
    """As the trainings differ that a study would compare: whole steps of both players."""
    fused = _ours(bench, k, "fp32", range(k))
    alone = [_ours(bench, 1, "fp32", range(seed, seed + 1)) for seed in range(k)]
    for _ in range(EQUAL_STEPS):
        fused()
        for one in alone:
            one()
    separate = [tensor for one in alone for tensor in one.weights()]
    pairs = zip(fused.weights(), separate, strict=True)
    largest = max(float((a - b).abs().max()) for a, b in pairs)
    return Figure(
        part=f"fused K={k}",
        subject="fused fp32",
        value=largest,
        unit=f"largest difference after {EQUAL_STEPS} steps",
        target=EQUAL,
        better="lower",
    )
