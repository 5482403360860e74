"""The leaderboard as a table for notebooks."""

from __future__ import annotations

import pandas as pd

from medaug.results.rows import Leaderboard

FIRST = [
    *("rank", "title", "mean", "low", "high", "gain", "gain_low", "gain_high"),
    *("conclusion.text", "worth.text", "flags"),
    *("arm", "kind", "synthetic", "n_synthetic", "per_class", "train_rows"),
    *("replicates", "expected"),
]
"""Columns in front; the others follow."""


def as_frame(board: Leaderboard) -> pd.DataFrame:
    """One line a configuration, best first.

    Columns are the fields of :class:`medaug.results.rows.Row`; grid values are
    ``point.<key>``, scores ``scores.<name>``, measures of generated rows ``quality.<name>``. Flags
    are joined by ``"; "``. What is not known is missing.
    """
    frame = pd.json_normalize([row.to_json() for row in board.rows])
    if frame.empty:
        return pd.DataFrame(columns=FIRST)
    frame["flags"] = frame["flags"].map("; ".join)
    whole = ("rank", "train_rows", "real_rows")
    frame = frame.astype(dict.fromkeys(whole, "Int64"))
    frame = frame.reindex(columns=[*FIRST, *(column for column in frame if column not in FIRST)])
    return frame.drop(columns=[name for name in ("conclusion", "worth") if name in frame])
