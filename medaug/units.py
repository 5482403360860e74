"""How amounts are written for people: durations and sizes."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """``4.2 s``, ``42 s``, ``3:20 min`` or ``1:05 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d} h"


def size(n_bytes: float) -> str:
    """``512 B``, ``4.2 kB``, ``42 MB`` or ``1.3 GB``, in powers of 1000 as disks are sold."""
    amount, unit = float(n_bytes), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 999.5:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.1f} {unit}" if amount < 9.95 and unit != "B" else f"{amount:.0f} {unit}"
