"""The nodes of a real cluster, asked about themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from medaug.doctor.cluster import judge
from medaug.sweep.cluster.nodes import ask_nodes
from medaug.sweep.cluster.start import Cluster

pytestmark = pytest.mark.ray


def test_every_node_reads_what_we_wrote_and_we_what_it_wrote(
    ray_cluster: Cluster, tmp_path: Path
) -> None:
    (node,) = ask_nodes(tmp_path / "runs", None, timeout_s=240)
    assert node.error == ""
    assert node.same_file
    assert node.answer is not None
    assert node.answer.versions["ray"]
    failed = [f for f in judge(node) if f.status == "fail" and "disk" not in f.check]
    assert not [f for f in failed if "shared memory" not in f.check and "files" not in f.check]
    assert not (tmp_path / "runs").exists()
