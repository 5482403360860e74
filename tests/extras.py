"""Marks of tests that want an extra. It is looked for, not imported: every process of the tests
reads every file of them, and MONAI alone takes six seconds."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

needs_monai = pytest.mark.skipif(
    find_spec("monai") is None or find_spec("einops") is None,
    reason="the extra [monai] brings it",
)
