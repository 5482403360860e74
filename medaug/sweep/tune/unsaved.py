"""What Tune may pickle of ours: nothing."""

from __future__ import annotations

from typing import Any


class Unsaved:
    """Base of what Tune is given. It pickles that for a restoration that never comes, and nothing
    of a study is to lie in its files."""

    def __getstate__(self) -> dict[str, Any]:
        return {}
