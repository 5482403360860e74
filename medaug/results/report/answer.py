"""What a study has shown and what it has not, in plain sentences that follow from its numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from medaug.results.leaderboard import CHANCE, COLLAPSE, Leaderboard, Row
from medaug.results.table import UNRANKABLE, with_interval


@dataclass(frozen=True)
class Answer:
    headline: str
    sentences: tuple[str, ...]


def answer(board: Leaderboard) -> Answer:
    """The honest answer to "does adding rows help?"."""
    reference = board.reference
    scored = [row for row in board.rows if row.replicates]
    if not scored or reference is None:
        unscored = "No classifier has finished, so there is nothing to compare yet."
        return Answer("No answer yet.", (unscored, *_unfinished(board)))
    ranked = [row for row in scored if row.rank is not None]
    candidates = [row for row in ranked if row.synthetic]
    if not ranked:
        headline, body = "Nothing here can be ranked.", _not_rankable(scored)
        if board.protocol == "as_published":
            headline = "This run repeats a published protocol; it is no evidence."
    elif not candidates:
        headline = "No configuration with synthetic data can be ranked."
        if not any(row.synthetic for row in scored):
            headline = "No arm with synthetic data was tried."
        synthetic = [row for row in scored if row.synthetic]
        body = (*_of_reference(reference, board), *_not_rankable(synthetic))
    elif shown := [row for row in candidates if _demonstrated(row)]:
        headline = "A gain from synthetic data is shown on these patients."
        body = (*_of_reference(reference, board), *_of_gain(shown, candidates, board))
    else:
        headline = "No gain from synthetic data is shown."
        body = (*_of_reference(reference, board), *_of_no_gain(candidates))
    return Answer(headline, (*body, *_unfinished(board)))


def _demonstrated(row: Row) -> bool:
    return row.gain_low > 0 and CHANCE not in row.flags and COLLAPSE not in row.flags


def _of_reference(reference: Row, board: Leaderboard) -> tuple[str, ...]:
    score = with_interval(reference.mean, reference.low, reference.high)
    text = (
        f"Without synthetic data the best configuration ({reference.title}) reaches a balanced"
        f" accuracy of {score} on {reference.patients} held-out patients."
    )
    if CHANCE in reference.flags:
        text += (
            f" That interval includes chance (1/{len(board.classes)}): these data and networks"
            " have not been shown to tell the classes apart at all, so neither a gain nor its"
            " absence says much about synthetic data."
        )
    return (text,)


def _of_gain(
    shown: Sequence[Row], candidates: Sequence[Row], board: Leaderboard
) -> tuple[str, ...]:
    best = shown[0]
    return (
        f"The best-placed configuration with synthetic data, {best.title}, raises it to"
        f" {with_interval(best.mean, best.low, best.high)}: a gain of {_gain(best)}, measured on"
        " the same patients and seeds.",
        f"{len(shown)} of {len(candidates)} rankable configurations with synthetic data show a"
        f" gain. {board.tried} configurations were tried in all, and the best of many looks better"
        " than it is: confirm it on patients that no configuration has seen before relying on it.",
    )


def _of_no_gain(candidates: Sequence[Row]) -> tuple[str, ...]:
    best = candidates[0]
    text = (
        f"The best-placed configuration with synthetic data, {best.title}, changes it by"
        f" {_gain(best)}, measured on the same patients and seeds."
    )
    below = [flag for flag in (CHANCE, COLLAPSE) if flag in best.flags]
    if below:
        text += f" It is itself {' and shows '.join(below)}."
    elif best.gain_high < 0:
        text += " Its whole interval lies below zero: it makes the classifier worse."
    elif math.isfinite(best.gain_low):
        text += (
            f" The data are compatible with a loss of up to {-best.gain_low:.3f} and with a gain of"
            f" up to {best.gain_high:.3f}: a larger gain is unlikely, a smaller one would need more"
            " patients or seeds to be seen."
        )
    if len(candidates) == 1:
        return (text,)
    number = "both" if len(candidates) == 2 else f"all {len(candidates)}"
    return (text, f"The same holds for {number} configurations with synthetic data.")


def _not_rankable(rows: Sequence[Row]) -> tuple[str, ...]:
    """The reasons that keep most rows from being ranked, the commonest first."""
    reasons: dict[str, int] = {}
    for row in rows:
        for flag in row.flags:
            if flag.startswith(UNRANKABLE):
                reason = flag.removeprefix(UNRANKABLE)
                reasons[reason] = reasons.get(reason, 0) + 1
    often = sorted(reasons, key=lambda reason: -reasons[reason])[:4]
    listed = "; ".join(f"{reason}, in {reasons[reason]} of {len(rows)} rows" for reason in often)
    return (f"Why: {listed}.",) if listed else ()


def _unfinished(board: Leaderboard) -> tuple[str, ...]:
    if not board.unfinished:
        return ()
    return (
        f"This is not the last word: {board.unfinished} trials are unfinished or failed, and the"
        " numbers may still change.",
    )


def _gain(row: Row) -> str:
    return with_interval(row.gain, row.gain_low, row.gain_high, signed=True)
