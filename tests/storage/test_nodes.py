"""Nodes with copies of their own: what Ray carries between them arrives as their own paths."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import boto3
import pytest

from tests.cluster.head import Head
from tests.cluster.hosts import HERE
from tests.storage.conftest import SECRET, URI, Node, keys

STUDY = """\
name: small
data: {image_size: 64, phantom: {patients: 12, d_prime: 2.6, slices: [3, 4]}}
split: {folds: 2}
segmenter: {base: 4, init: kaiming, epochs: 2, lr: 3.0e-4, batch_size: 4, pretrain: null}
features: {tap: conv5, batch_size: 4}
arms: {none: {}, duplicate: {}}
classifier: {kind: linear, epochs: 2, lr: 0.05}
sweep: {n_synthetic: [12], seeds: [0]}
resources: {ranks: 2, strategy: STRICT_SPREAD, hang_timeout_s: 300}
"""


ASK = """
import sys
from medaug.storage.uri import local
from medaug.sweep.cluster.nodes import ask_nodes
nodes = ask_nodes(local(sys.argv[1]), None, timeout_s=240)
print([(node.error, node.answer and node.answer.storage_error, node.same_file) for node in nodes])
"""


@pytest.mark.ray
def test_nodes_meet_in_the_bucket(node: Node, client: boto3.client) -> None:
    node("one")
    # In a process of its own: a cluster that tests share began without these credentials.
    asked = subprocess.run(
        [sys.executable, "-c", ASK, URI], capture_output=True, text=True, timeout=600
    )
    assert asked.stdout == "[('', '', True)]\n", asked.stdout + asked.stderr
    assert keys(client) == []


@pytest.mark.chaos
@pytest.mark.timeout(1800)
def test_ranks_on_two_nodes_make_one_store(client: boto3.client, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(STUDY)
    copies = [tmp_path / name for name in ("head", "worker", "person")]
    head = Head(tmp_path, 1, dashboard=False, MEDAUG_BUCKET_COPIES=str(copies[0]))
    with head:
        head.environment["MEDAUG_BUCKET_COPIES"] = str(copies[1])
        head.join(HERE, "--num-cpus=1")
        head.environment["MEDAUG_BUCKET_COPIES"] = str(copies[2])
        words = ("run", tmp_path / "small.yaml", "--storage", URI, "--address", head.address)
        ran = head.medaug(*words, timeout_s=1200)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert SECRET not in ran.stdout + ran.stderr
    made = [key for key in keys(client, "a/b/stores/features-") if key.endswith(".arrow")]
    assert len(made) == 4, "two folds, two parts"
    for copy in copies[:2]:
        here = {path.name for path in copy.rglob("features-*/*.arrow")}
        assert here == {"part-000-shard-00000.arrow", "part-001-shard-00000.arrow"}
    assert not list(copies[2].rglob("features-*/*.arrow")), "who only drives needs no features"
    assert not list(copies[2].rglob("ep_*"))
