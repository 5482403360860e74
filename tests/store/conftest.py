"""A function that makes small stores, on a node that remembers nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medaug.store import Store, StoreSchema, StoreWriter
from tests.store.small import ABOUT, SMALL, write_rows


@pytest.fixture(autouse=True)
def _node(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node of its own for every test: nothing is remembered as verified."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("node")))


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[..., Store]:
    """A function that writes n rows and opens the store."""

    def make(
        n: int = 40,
        schema: StoreSchema = SMALL,
        name: str = "store",
        access: Any = "auto",
        **about: Any,
    ) -> Store:
        with StoreWriter(tmp_path / name, schema, **{**ABOUT, **about}) as writer:
            write_rows(writer, schema, n)
        return Store.open(tmp_path / name, access=access)

    return make
