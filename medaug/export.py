"""A run's generator for others: its weights, a card that says what it is worth, and an audit.

A generator that remembers single training patients gives them away to whoever draws enough rows.
So one whose rows are near-copies of training rows more often than unseen patients' real rows are
does not leave without its owner's word for it, and the card says so.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from medaug.errors import UserError
from medaug.experiment import generator_name
from medaug.generator import ABOUT, CARD
from medaug.results.leaderboard import leaderboard_of
from medaug.results.numbers import with_interval
from medaug.results.records import TrialRecord
from medaug.results.rows import Leaderboard, Row
from medaug.storage.artifacts import Artifacts
from medaug.storage.manifest import write_manifest
from medaug.store import assembled
from medaug.tracking.generators import best_generator, is_portable

README = "README.md"
LICENCE = (
    "These weights were made from patients' data. They may be passed on only as the terms of those"
    " data and the patients' consent allow; medaug's own licence gives no right to them."
)


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
    audit = _audit(trial)
    if audit["exceeds_heldout"] is not False and not allow_near_copies:
        raise UserError(f"{folder.name}: {_refusal(row, audit)}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: is there already; name a new folder with --out")
    source = Artifacts(folder.parent).verified_model(generator_name(trial.config))
    card = _card(folder, row, trial, source) | {
        "near_copies": audit | {"allowed": allow_near_copies}
    }
    with assembled(out) as private:
        for file in source.iterdir():
            if file.name not in (ABOUT, "MANIFEST.json"):  # they name patients
                shutil.copy(file, private / file.name)
        (private / CARD).write_text(json.dumps(card, indent=1))
        (private / README).write_text(_readme(card))
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


def _audit(trial: TrialRecord) -> dict[str, Any]:
    """The near-copy audit of the trial's rows; ``exceeds_heldout`` is None where there is none."""
    scores = trial.scores
    found = {key: scores.get(f"near_copy_rate{end}") for key, end in _AUDIT.items()}
    low, heldout = found["low"], found["heldout"]
    exceeds = None if low is None or heldout is None else low > heldout
    return found | {"exceeds_heldout": exceeds}


_AUDIT = {"rate": "", "low": "_low", "high": "_high", "heldout": "_heldout"}


def _refusal(row: Row, audit: Mapping[str, Any]) -> str:
    if audit["exceeds_heldout"] is None:
        what = f"the rows of {row.title} were too few to be compared with their training rows"
    else:
        what = (
            f"{audit['rate']:.1%} of the rows of {row.title} are near-copies of training rows"
            f" (at least {audit['low']:.1%}), of unseen patients' real rows {audit['heldout']:.1%}"
        )
    return (
        f"{what}, so it may give patients away; export another --arm, or give --allow-near-copies"
    )


def _card(folder: Path, row: Row, trial: TrialRecord, source: Path) -> dict[str, Any]:
    about = json.loads((source / ABOUT).read_text())
    features = Artifacts(folder.parent).open_store(trial.generate.features)
    fitted_on = np.isin(features.units, about["fitted_on"])
    return {
        "run": folder.name,
        "configuration": row.title,
        "arm": about["arm"],
        "classes": about["classes"],
        "shape": about["shape"],
        "encoder": features.provenance.encoder,
        "fold": trial.config.fold,
        "seed": trial.config.seed,
        "training_patients": len(np.unique(features.patients[fitted_on])),
        "training_rows": int(fitted_on.sum()),
        "quality": dict(trial.scores),
        "leaderboard": {
            "rank": row.rank,
            "balanced_accuracy": _bounds(row.mean, row.low, row.high),
            "gain": _bounds(row.gain, row.gain_low, row.gain_high),
            "flags": list(row.flags),
        },
        "licence": LICENCE,
        "medaug": version("medaug"),
        "exported": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
    }


def _bounds(*bounds: float) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in bounds]


def _readme(card: Mapping[str, Any]) -> str:
    """The card for people."""
    board, copies = card["leaderboard"], card["near_copies"]
    kind = f"features (U-Net {card['encoder']}, not included)" if card["encoder"] else "images"
    shape = " x ".join(map(str, card["shape"]))
    score, gain = (
        with_interval(*(math.nan if v is None else v for v in board[key]), signed=key == "gain")
        for key in ("balanced_accuracy", "gain")
    )
    audit = "no audit could be made"
    if copies["exceeds_heldout"] is not None:
        audit = (
            f"{copies['rate']:.1%} of its rows (95 % interval {copies['low']:.1%} to"
            f" {copies['high']:.1%}), of unseen patients' real rows {copies['heldout']:.1%}"
        )
    if copies["exceeds_heldout"] is not False:
        audit += ". **Exported all the same, with --allow-near-copies: it may give patients away**"
    return f"""# {card["configuration"]} of {card["run"]}

Makes {kind}, {shape}, of the classes {", ".join(card["classes"])}.

```python
import medaug

rows = medaug.load_generator("THIS FOLDER").sample(100, "{card["classes"][-1]}")
```

- Trained on {card["training_rows"]} rows of {card["training_patients"]} patients (fold \
{card["fold"]}, seed {card["seed"]}).
- A classifier trained on real rows and its rows: balanced accuracy {score or "unknown"}; gain over
  the best configuration without synthetic data: {gain or "unknown"}.
- Said against it: {"; ".join(board["flags"]) or "nothing"}.
- Near-copies of training rows: {audit}.
- {card["licence"]}

All numbers are in `card.json`. Written by medaug {card["medaug"]} on {card["exported"]}.
"""
