"""What the class column of a table says of a scan: one class, or several."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from medaug.data.canonical import is_blank, tidy

Cells = Mapping[str, str]

SEVERAL = "|"
"""NIH's chest X-rays write several findings of one image so."""
_MARKS = (";", ",", "+", "&", "/")
"""Between the classes of one scan, where each of them stands alone elsewhere."""


def cells_of(rows: Sequence[Cells], column: str) -> Callable[[Cells], str]:
    """What a row says in ``column``; several classes of one scan are joined by :data:`SEVERAL`,
    whether they stand in brackets (PadChest's ``['a', 'b']``) or are joined by something else."""
    alone = {listed(row[column]) for row in rows}

    def cell(row: Cells) -> str:
        text = listed(row[column])
        for mark in _MARKS:
            parts = [tidy(part) for part in text.split(mark)]
            if len(parts) > 1 and alone.issuperset(parts) and not any(map(is_blank, parts)):
                return SEVERAL.join(parts)
        return text

    return cell


def listed(cell: str) -> str:
    """The cell; of a list in brackets its items, joined by :data:`SEVERAL`."""
    text = tidy(cell)
    if not (text.startswith("[") and text.endswith("]")):
        return text
    quoted = re.findall(r"'([^']*)'|\"([^\"]*)\"", text)
    items = [a or b for a, b in quoted] or text[1:-1].split(",")
    return SEVERAL.join(dict.fromkeys(filter(None, map(tidy, items))))
