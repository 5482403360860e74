"""What a group of ranks computes on, in words."""

from __future__ import annotations

import pytest

from medaug.sweep.trial.group import devices_of
from medaug.sweep.trial.rank import Place


@pytest.mark.parametrize(
    ("nodes", "places", "said"),
    [
        (1, [("a", "cuda:MIG-5f"), ("a", "cuda:2"), ("a", "cuda:GPU-8a")], "cuda:2,GPU-8a,MIG-5f"),
        (1, [("10.0.0.7", "cpu")], "cpu"),
        (1, [("10.0.0.7", "cpu")] * 2, "2 cpu"),
        (1, [("10.0.0.7", "cuda:1"), ("10.0.0.7", "cuda:0")], "cuda:0,1"),
        (2, [("10.0.0.7", "cuda:3")], "cuda:3 @ 10.0.0.7"),
        (2, [("10.0.0.7", "cuda:10"), ("10.0.0.7", "cuda:2")], "cuda:2,10 @ 10.0.0.7"),
        (2, [("10.0.0.7", "cuda:0"), ("10.0.0.8", "cuda:0")], "2 cuda @ 2 nodes"),
    ],
)
def test_devices_in_a_few_words(nodes: int, places: list[tuple[str, str]], said: str) -> None:
    assert devices_of([Place("n", host, 1, 2, device) for host, device in places], nodes) == said
