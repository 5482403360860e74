"""The first minutes on a borrowed GPU, rehearsed on a CPU."""

from __future__ import annotations

import json
from typing import Any

import pytest

from medaug.bench import Options, find_bench, gpu
from medaug.bench.workbench import Bench
from medaug.train import captured
from tests.train.tape import TapeRecorder


def test_the_rehearsal_says_a_line_for_each_part(capsys: pytest.CaptureFixture[str]) -> None:
    result = find_bench("gpu")(Options("tiny"))
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line[:1] == "{"]
    assert [line["part"] for line in lines] == list(gpu.PARTS)
    assert not [line for line in lines if "failed" in line]
    assert set(result.details["steps"]) == set(gpu.GANS)
    assert all(found["ms_alone"] > 0 for found in result.details["steps"].values())
    assert all(found["bitwise"] for found in result.details["repeatable"].values())
    assert result.details["nccl"]["2 ranks"] == {"right": True, "exits": [0, 0]}


def test_the_graph_part_times_the_trainers_own_step(monkeypatch: pytest.MonkeyPatch) -> None:
    recorders: dict[str, Any] = {"cpu": TapeRecorder}
    monkeypatch.setattr(captured, "RECORDERS", recorders)
    monkeypatch.setattr(gpu, "RECORDERS", recorders)
    monkeypatch.setattr(gpu, "RECORDED", ("stable fp32", "stable bf16"))
    found = find_bench("gpu")(Options("tiny", ("graph",))).details["graph"]
    assert set(found) == {"stable fp32", "stable bf16"}
    for each in found.values():
        assert each["recorded"]
        assert each["largest"] == 0.0
        assert each["replayed"]["ms_alone"] > 0


def test_a_part_that_fails_does_not_keep_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(bench: Bench) -> dict[str, object]:
        raise RuntimeError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(gpu, "PARTS", {"graph": broken, "environment": gpu.environment})
    result = find_bench("gpu")(Options("tiny"))
    assert "unspecified launch failure" in result.details["graph"]["failed"]
    assert result.details["environment"]["torch"]
    assert "unspecified launch failure" in capsys.readouterr().err
