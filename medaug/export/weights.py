"""A run's generator for others: its weights, and a card."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medaug.errors import UserError
from medaug.experiment import generator_name
from medaug.export.card import TERMS, card_of, check_free, checked_audit, said_of, write_about
from medaug.generator import ABOUT
from medaug.results.leaderboard import leaderboard_of
from medaug.results.records import TrialRecord
from medaug.results.rows import Leaderboard, Row
from medaug.storage.artifacts import Artifacts
from medaug.storage.manifest import write_manifest
from medaug.store import assembled
from medaug.tracking.generators import best_generator, is_portable

LICENCE = f"These weights were made from patients' data. They {TERMS}"


def export(
    folder: Path, out: Path, *, arm: str | None = None, allow_near_copies: bool = False
) -> Path:
    """Write the best-placed generator of the run in ``folder`` to the new folder ``out``.

    It holds ``config.json`` and ``weights.safetensors``, ``card.json`` and ``README.md``, and the
    hashes of all in ``MANIFEST.json``; no patient's pseudonym. ``medaug.load_generator(out)`` reads
    it. ``arm``: take the best-placed generator of this arm.

    Raises:
        UserError: there is no such generator, ``out`` is in use, or the generator copies its
            training rows (or that was never audited) and ``allow_near_copies`` is not given.
        IntegrityError: the generator is damaged.
    """
    board = leaderboard_of(folder)
    row, trial = _best(folder, board, arm)
    audit = checked_audit(folder, row, trial, allow=allow_near_copies)
    check_free(out)
    source = Artifacts(folder.parent).verified_model(generator_name(trial.config))
    card = card_of(folder, row, trial, source) | {"licence": LICENCE, "near_copies": audit}
    with assembled(out) as private:
        for file in source.iterdir():
            if file.name not in (ABOUT, "MANIFEST.json"):  # they name patients
                shutil.copy(file, private / file.name)
        write_about(private, folder, board, card, _readme(card))
        write_manifest(private)
    return out


def _best(folder: Path, board: Leaderboard, arm: str | None) -> tuple[Row, TrialRecord]:
    if (best := best_generator(folder, board, arm)) is not None:
        return best
    portable = sorted({row.arm for row in board.rows if is_portable(row.kind)})
    have = f"; it has {', '.join(portable)}" if portable else ""
    which = "generator" if arm is None else f"generator of arm '{arm}'"
    raise UserError(
        f"{folder.name}: no finished {which} that makes rows without its training data{have}"
    )


def _readme(card: Mapping[str, Any]) -> str:
    kind = f"features (U-Net {card['encoder']}, not included)" if card["encoder"] else "images"
    shape = " x ".join(map(str, card["shape"]))
    return f"""# {card["configuration"]} of {card["run"]}

Makes {kind}, {shape}, of the classes {", ".join(card["classes"])}.

```python
import medaug

rows = medaug.load_generator("THIS FOLDER").sample(100, "{card["classes"][-1]}")
```

{said_of(card)}"""
