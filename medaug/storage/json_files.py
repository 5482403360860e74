"""Records as JSON: one value a file, or one value a line."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medaug.errors import IntegrityError
from medaug.storage import storage_at
from medaug.storage.reading import MOST_JSON_BYTES, parse_object, read_regular

REMEDY = "delete it and resume the run"


def write_json(path: Path, value: Mapping[str, Any], *, durable: bool = True) -> None:
    """Write ``value``: readers see the old content or the new, never a part.

    ``durable``: also after a power cut. It takes two syncs of the disk, some 10 ms.
    """
    storage_at(path).write(path, json.dumps(value, indent=1).encode(), durable=durable)


def read_json(path: Path) -> dict[str, Any] | None:
    """What :func:`write_json` wrote, or None where there is nothing.

    Raises:
        IntegrityError: it is not whole, no object, or no file at all.
    """
    try:
        content = read_regular(path, MOST_JSON_BYTES)
        return None if content is None else parse_object(content, str(path))
    except IntegrityError as damage:
        raise IntegrityError(f"{damage}; {REMEDY}") from None


def append_json(path: Path, row: Mapping[str, Any]) -> None:
    """Append ``row`` as a line."""
    storage_at(path).append(path, json.dumps(row).encode())


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of lines; those that a kill has torn are left out.

    Raises:
        IntegrityError: it is no file.
    """
    rows = []
    for line in (read_regular(path) or b"").splitlines():
        with contextlib.suppress(IntegrityError):
            rows.append(parse_object(line, ""))
    return rows
