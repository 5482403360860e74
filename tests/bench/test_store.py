"""The store's benchmark with tiny sizes: everything runs and every peer is accounted for."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from medaug.bench import Options, find_bench
from medaug.bench.peers import PEERS, Rows, make_peer
from medaug.bench.peers_stand_in import stand_in_for


def test_all_parts_run_and_no_peer_is_dropped(tmp_path: Path) -> None:
    result = find_bench("store")(Options("tiny", folder=tmp_path))

    random = [f for f in result.figures if f.part == "random 15x15x32"]
    assert {f.subject for f in random} == {"medaug", *PEERS}
    for figure in random:
        assert figure.value or "not installed" in figure.note or "--size full" in figure.note
    parts = {figure.part.split()[0] for figure in result.figures}
    assert parts == {"random", "sequential", "write", "epoch"}
    assert all(f.ratio is not None for f in result.figures if f.subject == "medaug")
    assert not list(tmp_path.iterdir()), "data are gone afterwards"


def test_the_epoch_watches_memory_disk_and_waiting(tmp_path: Path) -> None:
    result = find_bench("store")(Options("tiny", ("epoch",), tmp_path))

    found = {f.subject: f for f in result.figures}
    assert found["peak private memory"].value > 0
    assert 0 <= found["waiting for data"].value <= 1
    assert found["read amplification"].value or "no reads" in found["read amplification"].note
    assert any("memory limit" in note for note in result.notes)


def test_the_command_prints_one_json_object(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "medaug.bench", "store", "--json", "--size", "tiny"]
    command += ["--part", "write", "--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    body = json.loads(done.stdout)
    assert body["name"] == "store"
    assert {figure["subject"] for figure in body["figures"]} >= {"medaug", "np.save"}


@pytest.mark.parametrize("name", [name for name in PEERS if not PEERS[name].children])
def test_a_peer_reads_all_rows_or_says_that_it_is_missing(name: str, tmp_path: Path) -> None:
    rows = Rows(np.arange(8 * 12, dtype=np.float16).reshape(8, 3, 2, 2), np.zeros(8, np.int64))

    read = make_peer(name, rows, tmp_path / "peer")

    if isinstance(read, str):
        assert read.startswith("not installed (")
    else:
        order = [np.array([6, 1, 3, 0]), np.array([2, 7, 5, 4])]
        assert read(order) == 8


def test_a_stand_in_replaces_only_what_is_missing() -> None:
    assert importlib.util.find_spec("no_such_package") is None
    with stand_in_for("no_such_package", "json"):
        no_such_package = importlib.import_module("no_such_package.part")
        assert isinstance(no_such_package.Anything, type)
        assert importlib.import_module("json").dumps(1) == "1"
    assert importlib.util.find_spec("no_such_package") is None
