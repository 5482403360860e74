"""``precision: auto``: what is faster, looked for once, kept, agreed on, and no part of a name."""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import nn

from medaug.spec import FeatureSpec, SegmenterSpec
from medaug.spec.arms import AcganSpec
from medaug.spec.classifier import NetworkSpec
from medaug.train import precision
from medaug.train.gan import train_gan
from medaug.train.precision import settle
from medaug.train.world import World
from tests.train.test_replicates import task

ALONE = World.single()


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A node on which nothing is known yet."""
    monkeypatch.delenv(precision.OVERRIDE)
    monkeypatch.setattr(precision, "_known", {})
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


class Slow(nn.Linear):
    """A layer that takes its time in one of the two precisions."""

    def __init__(self, where: str) -> None:
        super().__init__(4, 4)
        self.where, self.passes = where, 0

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        narrow = torch.is_autocast_enabled("cpu")
        end = time.process_time() + (0.02 if narrow == (self.where == "bf16") else 0.002)
        while time.process_time() < end:
            pass
        return super().forward(input)


def asked(what: str, layer: nn.Module, facts: dict[str, Any] | None = None) -> str:
    def one_pass(copies: dict[str, nn.Module]) -> Any:
        assert copies["net"] is not layer
        return lambda: copies["net"](torch.randn(2, 4)).sum().backward()

    return settle(what, {"net": layer}, one_pass, ALONE, {} if facts is None else facts)


@pytest.fixture
def narrow_products_are_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor with BF16 units: what the network itself takes decides."""
    monkeypatch.setattr(precision, "_product", lambda device: lambda: time.sleep(0))
    monkeypatch.setattr(precision, "HOPELESS", 1e9)


@pytest.mark.usefixtures("narrow_products_are_quick")
@pytest.mark.parametrize(("slow", "chosen"), [("bf16", "fp32"), ("fp32", "bf16")])
def test_what_is_faster_is_taken_and_kept_on_the_node(
    node: Path, slow: str, chosen: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    facts: dict[str, Any] = {}
    assert asked("auto", Slow(slow), facts) == chosen
    assert facts == {"precision": chosen}, "for the checkpoint"
    assert f"precision: {chosen} (bf16 is" in caplog.text
    (kept,) = node.glob("medaug-precision-*/*.json")
    assert (json.loads(kept.read_text())["speed"] > 1) == (chosen == "bf16")
    precision._known.clear()  # another process of this node
    other = "fp32" if slow == "bf16" else "bf16"
    assert asked("auto", Slow(other)) == chosen, "it does not look again"


@pytest.mark.usefixtures("narrow_products_are_quick")
def test_bf16_that_is_slower_has_a_line(node: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert asked("bf16", Slow("bf16")) == "bf16"
    assert "times as slow as fp32 here; use auto or fp32" in caplog.text
    caplog.clear()
    precision._known.clear()
    for file in node.glob("*/*.json"):
        file.write_text("{}")  # what cannot be read is measured again
    assert asked("bf16", Slow("fp32")) == "bf16"
    assert not caplog.text


def test_a_processor_without_bf16_is_known_by_one_product(
    node: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There a pass of a U-Net in bfloat16 would take a minute."""

    layer = Slow("bf16")
    monkeypatch.setattr(precision, "_product", lambda device: lambda: layer(torch.ones(1, 4)))

    def never(copies: dict[str, nn.Module]) -> Any:
        raise AssertionError("the network was run")

    assert settle("auto", {"net": nn.Linear(3, 3)}, never, ALONE, {}) == "fp32"


def test_the_measurement_leaves_no_trace_in_the_training(node: Path) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    layer = nn.Linear(4, 4)
    torch.set_rng_state(before)
    asked("auto", layer)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(p.grad is None for p in layer.parameters())


def test_a_resumed_training_keeps_to_what_it_began_with(
    node: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(precision.OVERRIDE, "bf16")
    one = task("stable", 0, precision="auto", epochs=2)
    first, last = train_gan(one, ALONE)
    assert first.checkpoint is not None
    assert first.checkpoint.state["facts"]["precision"] == "bf16"
    assert last.result.precision == "bf16"
    monkeypatch.setenv(precision.OVERRIDE, "fp32")
    again = task("stable", 0, precision="auto", epochs=2, resume=first.checkpoint)
    (rest,) = train_gan(again, ALONE)
    assert rest.metrics == last.metrics
    assert rest.result.precision == "bf16"


def _vote(world: World, speeds: tuple[float, float]) -> str:
    networks = {"net": nn.Linear(2, 2)}
    precision._known[precision._key(networks, world.device, "bf16")] = speeds[world.rank]
    with mock.patch.dict(os.environ):
        del os.environ[precision.OVERRIDE]
        return settle("auto", networks, lambda copies: lambda: None, world, {})


@pytest.mark.parametrize(
    ("speeds", "chosen"), [((2.0, 2.0), "bf16"), ((2.0, 0.5), "fp32"), ((0.5, 2.0), "fp32")]
)
def test_ranks_on_unlike_nodes_agree(
    node: Path, two_ranks: Any, speeds: tuple[float, float], chosen: str
) -> None:
    assert two_ranks(_vote, speeds) == [chosen] * 2


def test_auto_is_the_default_and_what_names_a_trial() -> None:
    for spec in (AcganSpec(), SegmenterSpec(), FeatureSpec(), NetworkSpec()):
        assert spec.canonical()["precision"] == "auto"
