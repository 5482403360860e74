"""The core and its benchmarks on a machine that has torch, pyarrow, numpy and pydantic only."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
from importlib import metadata
from pathlib import Path

import pytest

HAS = ("torch", "pyarrow", "numpy", "pydantic")
CORE = ("spec", "store", "models", "train", "arms")

_ONLY = """
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        absent = name.partition(".")[0] in BLOCKED
        return None if absent else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = map(Without, sys.meta_path)
"""


def _with_requirements(names: tuple[str, ...]) -> set[str]:
    """The distributions ``names`` and all that they require, extras left out."""
    found: set[str] = set()
    todo = [*names]
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        if name in found:
            continue
        found.add(name)
        try:
            lines = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # for another system or Python
            continue
        todo += [re.split(r"[^\w.-]", line)[0] for line in lines if "extra ==" not in line]
    return found


def _blocked() -> set[str]:
    """Top-level modules of every installed distribution that a bare machine does not have."""
    kept = {*_with_requirements(HAS), "medaug", "setuptools", "pip"}
    owners = metadata.packages_distributions().items()
    names = {
        module: {re.sub(r"[-_.]+", "-", dist).lower() for dist in dists} for module, dists in owners
    }
    return {module for module, dists in names.items() if not dists & kept}


def _on_a_bare_machine(code: str) -> subprocess.CompletedProcess[str]:
    program = f"BLOCKED = {_blocked()!r}\n{_ONLY}\n{textwrap.dedent(code)}"
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=240
    )


def test_what_a_bare_machine_lacks_is_blocked() -> None:
    blocked = _blocked()

    missing = {"ray", "mlflow", "click", "rich", "sklearn", "scipy", "yaml", "xxhash", "blake3"}
    assert missing <= blocked
    assert not {"torch", "numpy", "pyarrow", "pydantic", "medaug"} & blocked
    assert "No module named 'scipy'" in _on_a_bare_machine("import scipy").stderr


def test_every_file_of_the_core_imports() -> None:
    done = _on_a_bare_machine(
        f"""
        import importlib, pkgutil
        for name in {CORE!r}:
            room = importlib.import_module("medaug." + name)
            for module in pkgutil.walk_packages(room.__path__, room.__name__ + "."):
                if module.name == "medaug.spec.yaml_strict":
                    continue  # it reads YAML files; where there is no PyYAML, nobody has one
                importlib.import_module(module.name)
                print(module.name)
        """
    )

    assert not done.returncode, done.stderr
    imported = {line.split(".")[1] for line in done.stdout.splitlines()}
    assert imported == set(CORE)


def test_the_store_is_measured_there(tmp_path: Path) -> None:
    arguments = ["store", "--size", "tiny", "--part", "random", "--json", "--folder", str(tmp_path)]
    done = _on_a_bare_machine(f"from medaug.bench.__main__ import main; main({arguments!r})")

    assert not done.returncode, done.stderr
    found = {figure["subject"]: figure for figure in json.loads(done.stdout)["figures"]}
    assert found["medaug"]["ratio"]["median"] > 0
    assert "not installed" in found["LMDB"]["note"]


@pytest.mark.parametrize("name", ["steps", "ddp"])
def test_steps_and_ranks_are_measured_there(name: str) -> None:
    done = _on_a_bare_machine(
        f"from medaug.bench.__main__ import main; main([{name!r}, '--size', 'tiny', '--json'])"
    )

    assert not done.returncode, done.stderr
    figures = json.loads(done.stdout)["figures"]
    assert figures
    assert all(figure["value"] is not None for figure in figures)
