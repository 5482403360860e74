"""Nodes with copies of their own: what Ray carries between them arrives as their own paths."""

from __future__ import annotations

import pytest

from medaug.place import local
from medaug.sweep.nodes import ask_nodes
from tests.bucket.conftest import URI, Node, keys

pytestmark = pytest.mark.ray


def test_nodes_meet_in_the_bucket(node: Node, client: object) -> None:
    node("one")
    (asked,) = ask_nodes(local(URI), None, timeout_s=240)
    assert asked.error == ""
    assert asked.answer is not None, asked
    assert asked.answer.storage_error == ""
    assert asked.same_file
    assert keys(client) == []
