"""The card of what leaves: what it was made from, what it is worth, and whether it copies."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from medaug.errors import UserError
from medaug.generator import ABOUT, CARD
from medaug.results.numbers import with_interval
from medaug.results.records import TrialRecord, read_study, read_trials
from medaug.results.report.checklist import checklist_table
from medaug.results.report.evidence import Evidence
from medaug.results.rows import Leaderboard, Row
from medaug.storage.artifacts import Artifacts

README = "README.md"
CHECKLIST = "checklist.csv"
TERMS = (
    "may be passed on only as the terms of those data and the patients' consent allow; medaug's own"
    " licence gives no right to them."
)


def checked_audit(folder: Path, row: Row, trial: TrialRecord, *, allow: bool) -> dict[str, Any]:
    """The near-copy audit of a generator's rows, for its card.

    Raises:
        UserError: it copies its training rows, or was never audited, and ``allow`` is not set.
    """
    audit = _audit(trial)
    if audit["exceeds_heldout"] is not False and not allow:
        raise UserError(f"{folder.name}: {_refusal(row, audit)}")
    return audit | {"allowed": allow}


def check_free(out: Path) -> None:
    """Raises UserError where ``out`` is in use."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: is there already; name a new folder with --out")


def card_of(folder: Path, row: Row, trial: TrialRecord, source: Path) -> dict[str, Any]:
    """What ``card.json`` says of the generator in ``source``, whose row the leaderboard has."""
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
            "reference": row.reference,
            "conclusion": row.ending or None,
            "worth_real_rows": row.worth.text if row.worth else None,
            "flags": list(row.flags),
        },
        "medaug": version("medaug"),
        "exported": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
    }


def write_about(
    out: Path, folder: Path, board: Leaderboard, card: Mapping[str, Any], readme: str
) -> None:
    """Write into ``out`` what goes along with anything that leaves the run in ``folder``: the card,
    its words for people, and the reporting checklist, what the run's records can answer."""
    trials = {trial.config.key: trial for trial in read_trials(folder)}
    evidence = Evidence(folder, read_study(folder), board, trials)
    (out / CARD).write_text(json.dumps(card, indent=1))
    (out / CHECKLIST).write_bytes(checklist_table(evidence))
    (out / README).write_text(readme)


def said_of(card: Mapping[str, Any]) -> str:
    """The card for people, as a list: what README.md says of anything that leaves."""
    board = card["leaderboard"]
    score, gain = (
        with_interval(*(math.nan if v is None else v for v in board[key]), signed=key == "gain")
        for key in ("balanced_accuracy", "gain")
    )
    over = f" ({board['reference']})" if board["reference"] else ""
    ends = [board["conclusion"]] if board["conclusion"] else []
    ends += [f"worth {board['worth_real_rows']} real rows"] if board["worth_real_rows"] else []
    return f"""- Trained on {card["training_rows"]} rows of {card["training_patients"]} patients \
(fold {card["fold"]}, seed {card["seed"]}).
- A classifier trained on real rows and its rows: balanced accuracy {score or "unknown"}; gain over
  the best configuration without synthetic data{over}: {gain or "unknown"}.
- How the comparison ends: {"; ".join(ends) or "nothing is concluded"}.
- Said against it: {"; ".join(board["flags"]) or "nothing"}.
- Near-copies of training rows: {_copies(card["near_copies"])}.
- {card["licence"]}

All numbers are in `card.json`; `checklist.csv` holds the items of CLAIM 2024 and TRIPOD+AI that the
run's records can answer, and names those that only its authors can. Written by medaug \
{card["medaug"]} on {card["exported"]}.
"""


def _copies(copies: Mapping[str, Any]) -> str:
    audit = "no audit could be made"
    if copies["exceeds_heldout"] is not None:
        audit = (
            f"{copies['rate']:.1%} of its rows (95 % interval {copies['low']:.1%} to"
            f" {copies['high']:.1%}), of unseen patients' real rows {copies['heldout']:.1%}"
        )
    if copies["exceeds_heldout"] is not False:
        audit += ". **Exported all the same, with --allow-near-copies: it may give patients away**"
    return audit


def _audit(trial: TrialRecord) -> dict[str, Any]:
    """``exceeds_heldout`` is None where there is no audit."""
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


def _bounds(*bounds: float) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in bounds]
