from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _reproducible() -> Iterator[None]:
    """A fixed seed: module initialisation draws from torch's global generator."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
