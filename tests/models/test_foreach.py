"""Operations on lists are those on each, with torch's private names and without."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from medaug.models import foreach

Tensors = list[torch.Tensor]


def norms(a: Tensors, b: Tensors) -> Tensors:
    return foreach.norms(a)


def lerp_(a: Tensors, b: Tensors) -> Tensors:
    foreach.lerp_(a, b, 0.3)
    return a


def copy_(a: Tensors, b: Tensors) -> Tensors:
    foreach.copy_(a, [x.bfloat16() for x in b])
    return a


def add_(a: Tensors, b: Tensors) -> Tensors:
    foreach.add_(a, b)
    return a


def add_a_number_(a: Tensors, b: Tensors) -> Tensors:
    foreach.add_(a, 2.0)
    return a


def div(a: Tensors, b: Tensors) -> Tensors:
    return foreach.div([x.bfloat16() for x in a], [x[:, :1] for x in b])


def addcmul_(a: Tensors, b: Tensors) -> Tensors:
    foreach.addcmul_(a, [x[:, :1] for x in b], [x[:1] for x in b], value=-1)
    return a


NAMES = [name for name in vars(foreach) if name.isupper() and name.startswith("_")]


@pytest.mark.parametrize(
    "operation", [norms, lerp_, copy_, add_, add_a_number_, div, addcmul_], ids=lambda f: f.__name__
)
def test_without_the_private_name_a_loop_does_the_same(
    operation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    shapes = [(3, 4), (1, 7), (5, 2)]
    a, b = ([torch.rand(shape) + 0.5 for shape in shapes] for _ in range(2))
    with_name = operation([x.clone() for x in a], b)
    assert len(NAMES) == 6
    for name in NAMES:
        assert getattr(foreach, name) is not None, f"this torch has no {name}"
        monkeypatch.setattr(foreach, name, None)
    without = operation([x.clone() for x in a], b)
    assert [x.dtype for x in with_name] == [x.dtype for x in without]
    torch.testing.assert_close(with_name, without, rtol=1e-6, atol=0)
