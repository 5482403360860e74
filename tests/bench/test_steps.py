"""The benchmarks of training steps: that they run, and that what they compare is the same step."""

from __future__ import annotations

import json

import pytest
import torch

from medaug.bench import Options, find_bench
from medaug.bench.ddp import _on_ranks
from medaug.bench.steps_gan import BATCH, Ours, acgan_pair, random_rows
from medaug.bench.workbench import reference_step
from medaug.errors import MedaugError
from medaug.spec.arms import AcganSpec
from medaug.train.world import World

SHAPE = (8, 8, 8)


def test_the_reference_step_is_our_step_taken_slowly() -> None:
    """As published, without dropout, in float32: equal weights after three steps."""
    world = World.single()
    build = acgan_pair(SHAPE, 4, "bn", "pyramid", dropout=0.0)
    spec = AcganSpec(preset="as_published", batch_size=BATCH, lr_g=2e-6, lr_d=2e-6)
    ours = Ours(spec, build, [random_rows(SHAPE, 4 * BATCH)], world)
    (run,) = ours.replicates
    pair = build()
    for network, own in zip(pair, (run.generator, run.discriminator), strict=True):
        network.load_state_dict(own.state_dict())
    reference = reference_step()(*pair, 2, lr=2e-6)

    for _ in range(3):
        draw = run.next_draw()
        assert draw is not None
        batch = run.batch(draw)
        ours.taker.take([draw])
        run.training.step += 1
        reference(batch.real, batch.real_label, batch.z, batch.fake_label)

    for network, own in zip(pair, (run.generator, run.discriminator), strict=True):
        for (name, tensor), other in zip(
            network.state_dict().items(), own.state_dict().values(), strict=True
        ):
            torch.testing.assert_close(tensor, other, rtol=1e-4, atol=1e-5, msg=name)


def test_every_part_runs() -> None:
    result = find_bench("steps")(Options("tiny"))

    parts = {figure.part.split()[0] for figure in result.figures}
    assert parts == {"acgan", "dcgan32", "unet", "classifier", "fused"}
    assert all(f.target is None for f in result.figures if f.ratio is not None)
    equal = [f for f in result.figures if "largest difference" in f.unit]
    assert [f.part for f in equal] == ["fused K=1", "fused K=4", "fused K=16"]
    assert all(f.met for f in equal)
    assert json.loads(result.to_json())["machine"]["threads"] == 1


def test_two_ranks_are_equal_to_one() -> None:
    result = find_bench("ddp")(Options("tiny", ("equality",)))

    assert len(result.figures) == 2
    # Ten times the target: rounding differs from processor to processor.
    assert all(figure.value < 1e-5 for figure in result.figures), result.to_json()


def _dies(world: World) -> None:
    if world.rank:
        raise SystemExit(3)


def test_a_rank_that_dies_ends_the_benchmark() -> None:
    with pytest.raises(MedaugError, match="rank 1 of 2 gave no answer"):
        _on_ranks(2, _dies)
