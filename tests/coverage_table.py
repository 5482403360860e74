"""``python -m tests.coverage_table FILE``: coverage.py's JSON as a table of rooms, and the modules of
which less than :data:`LEAST` of the lines ran."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path, PurePath

LEAST = 0.7


def table(body: dict[str, dict[str, dict[str, dict[str, int]]]]) -> list[str]:
    """Lines to print, of coverage.py's report as JSON."""
    ran: Counter[str] = Counter()
    lines: Counter[str] = Counter()
    low = []
    for name, about in body["files"].items():
        n, covered = about["summary"]["num_statements"], about["summary"]["covered_lines"]
        path = PurePath(name)
        room = "/".join(path.parts[: 2 if len(path.parts) > 2 else 1])
        for key in (room, "all"):
            ran[key] += covered
            lines[key] += n
        if covered < LEAST * n:
            low.append((covered / n, name))
    rooms = [key for key in sorted(lines) if key != "all"]
    width = max(map(len, rooms))
    said = [
        f"{key:{width}}  {ran[key] / lines[key]:6.1%} of {lines[key]:6,}"
        for key in [*rooms, "all"]
        if lines[key]
    ]
    return [*said, *(f"below {LEAST:.0%}: {name} {share:.1%}" for share, name in sorted(low))]


if __name__ == "__main__":
    print("\n".join(table(json.loads(Path(sys.argv[1]).read_text()))))
