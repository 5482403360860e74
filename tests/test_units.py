"""Amounts as people read them."""

from __future__ import annotations

from medaug.units import duration, size


def test_durations() -> None:
    assert [duration(x) for x in (0.04, 9.94, 42, 200, 3900)] == [
        "0.0 s", "9.9 s", "42 s", "3:20 min", "1:05 h",
    ]  # fmt: skip


def test_sizes() -> None:
    assert [size(x) for x in (0, 512, 999.7, 4_200, 41_600_000, 999_600_000, 1.34e12)] == [
        "0 B", "512 B", "1.0 kB", "4.2 kB", "42 MB", "1.0 GB", "1.3 TB",
    ]  # fmt: skip
