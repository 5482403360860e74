from __future__ import annotations

import copy
import os

import pytest
import torch
from torch import nn

from medaug.errors import UserError
from medaug.train.world import (
    World,
    check_batch_size,
    convert_batchnorm,
    distribute,
    init_group,
)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("n", [0, 1, 7, 16, 100])
def test_shares_cover_everything_once_in_order_and_evenly(size: int, n: int) -> None:
    shares = [range(n)[World(r, size, r, torch.device("cpu")).share(n)] for r in range(size)]
    assert [i for share in shares for i in share] == list(range(n))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_one_process_needs_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    world = World.from_env()
    assert (world.rank, world.size, world.is_main) == (0, 1, True)
    x = torch.arange(3.0, device=world.device)
    assert world.reduce_sum(x) is x
    assert world.gather(x) is x
    world.barrier()
    assert init_group(0, 1, "unused", 0, 1.0) == World.single()


def test_a_batch_must_feed_every_rank() -> None:
    world = World(0, 4, 0, torch.device("cpu"))
    check_batch_size(4, world, "classifier.batch_size")
    with pytest.raises(UserError, match=r"classifier\.batch_size: .* 3 .* 4 ranks"):
        check_batch_size(3, world, "classifier.batch_size")


def _collectives(world: World) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    mine = torch.full((2, 3), float(world.rank + 1)).t()  # not contiguous
    total = world.reduce_sum(mine)
    world.barrier()
    rows = world.gather(torch.full((3 * world.rank, 2), world.rank, dtype=torch.int64))
    return mine.clone(), total, rows, world.gather(torch.tensor([[float(world.rank)]]))


def test_collectives_agree_on_both_ranks(two_ranks) -> None:
    for rank, (mine, total, rows, column) in enumerate(two_ranks(_collectives)):
        assert torch.equal(mine, torch.full((3, 2), float(rank + 1)))
        assert torch.equal(total, torch.full((3, 2), 3.0))
        assert torch.equal(rows, torch.ones(3, 2, dtype=torch.int64))
        assert torch.equal(column, torch.tensor([[0.0], [1.0]]))


def _as_torchrun_says(world: World) -> World:
    says = {"RANK": world.rank, "LOCAL_RANK": world.rank, "WORLD_SIZE": world.size}
    os.environ.update({key: str(value) for key, value in says.items()})
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="1")  # not used: the group exists
    try:
        return World.from_env(timeout_s=60)
    finally:
        for key in (*says, "MASTER_ADDR", "MASTER_PORT"):
            del os.environ[key]


def test_ranks_read_their_place_from_the_environment(two_ranks) -> None:
    worlds = two_ranks(_as_torchrun_says)
    assert [(w.rank, w.size, w.local_rank, w.is_main) for w in worlds] == [
        (0, 2, 0, True),
        (1, 2, 1, False),
    ]


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5),
        nn.BatchNorm1d(5, momentum=None), nn.Linear(5, 1),
    ).double()  # fmt: skip


def _train(world: World, n: int) -> dict[str, torch.Tensor]:
    """Three steps on global batches of ``n``; the loss is a mean over the *global* batch."""
    network = convert_batchnorm(_network(), world)
    model = distribute(network, world)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(3):
        x = torch.randn(n, 2, 6, 6, generator=torch.Generator().manual_seed(step)).double() + step
        out = model(x[world.share(n)])
        optimizer.zero_grad()
        (out.square().sum() / n * world.size).backward()
        optimizer.step()
    network.eval()
    return {**network.state_dict(), "eval": network(torch.ones(3, 2, 6, 6).double()).detach()}


@pytest.mark.parametrize("n", [8, 7])
def test_batchnorm_over_two_ranks_equals_one_rank_with_the_global_batch(two_ranks, n: int) -> None:
    expected = _train(World.single(), n)
    for state in two_ranks(_train, n):
        assert list(state) == list(expected)
        for name, value in expected.items():
            torch.testing.assert_close(state[name], value, rtol=1e-9, atol=1e-9, msg=name)


def test_conversion_on_one_rank_changes_nothing() -> None:
    network = _network()
    before = copy.deepcopy(network)
    assert convert_batchnorm(network, World.single()) is network
    assert repr(network) == repr(before)
    assert distribute(network, World.single()) is network
