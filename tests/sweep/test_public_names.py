"""Ray by its public names alone: another version of it must not end a sweep."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "medaug"
DOCUMENTED = {"_temp_dir", "_node_ip_address"}
"""Of ``ray.init``: its documentation has the first, and there is no other way to say the second."""
PRIVATE = re.compile(r"(^|\.)_[a-z]")


def private_names(source: str) -> Iterator[str]:
    """Modules and attributes of Ray, and arguments that are given to its functions, whose name
    begins with an underscore; internals of its libraries are no better."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute):
            names = [ast.unparse(node)]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).startswith("ray."):
            given = {keyword.arg or "" for keyword in node.keywords} - DOCUMENTED
            names = [f"ray.{name}" for name in given]
        else:
            continue
        for name in names:
            if name.startswith("ray.") and PRIVATE.search(name):
                yield name


def test_ray_is_known_by_public_names_only() -> None:
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 100
    found = [
        f"{file.relative_to(PACKAGE)}: {name}"
        for file in files
        if "ray" in (source := file.read_text())
        for name in private_names(source)
    ]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "from ray._private.state import state",
        "import ray._raylet",
        "from ray.train._internal import session",
        "from ray import _raylet",
        "ray._private.worker.global_worker",
        "ray.init(_system_config={})",
    ],
)
def test_private_names_are_seen(source: str) -> None:
    assert list(private_names(source))
