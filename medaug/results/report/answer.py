"""What a study has shown and what it has not, in plain sentences that follow from its numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from medaug.results.numbers import with_interval
from medaug.results.rows import CHANCE, COLLAPSE, UNRANKABLE, WEAKER, Leaderboard, Row
from medaug.results.table import worth_of


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
        body = (
            *_of_weaker(scored, board),
            *_of_reference(reference, board),
            *_of_positive_control(board),
            *_not_rankable(synthetic),
        )
    else:
        headline, said = _of_candidates(candidates, board)
        body = (
            *_of_weaker(scored, board),
            *_of_reference(reference, board),
            *_of_positive_control(board),
            *said,
        )
    return Answer(headline, (*body, *_unfinished(board)))


def _of_candidates(candidates: Sequence[Row], board: Leaderboard) -> tuple[str, tuple[str, ...]]:
    """The headline, and what is said of the rankable rows with synthetic data."""
    if shown := [row for row in candidates if _demonstrated(row)]:
        headline = "A gain from synthetic data is shown on these patients."
        return headline, _of_gain(shown, candidates, board)
    seen = [row for row in candidates if _above_floor(row) and WEAKER not in row.flags]
    if not seen:
        return "No gain from synthetic data is shown.", _of_no_gain(candidates, board)
    if all(row.conclusion is not None and row.conclusion.end == "no gain" for row in seen):
        headline = f"Synthetic data bring no gain above +{board.margin:g} here."
        return headline, _of_no_gain(candidates, board)
    headline = "No gain from synthetic data is shown, nor ruled out."
    return headline, _of_no_gain(candidates, board)


def _demonstrated(row: Row) -> bool:
    return row.gain_low > 0 and _above_floor(row) and not row.unknown_lineage


def _above_floor(row: Row) -> bool:
    return CHANCE not in row.flags and COLLAPSE not in row.flags


def _of_weaker(scored: Sequence[Row], board: Leaderboard) -> tuple[str, ...]:
    """First of all: which classifiers see less than a linear model does."""
    weaker = [row for row in scored if row.weaker_by is not None]
    if not weaker:
        return ()
    worst = max(weaker, key=lambda row: row.weaker_by[1] if row.weaker_by else 0.0)
    assert worst.weaker_by is not None
    title, *lead = worst.weaker_by
    names = sorted({row.classifier or "the study's own" for row in weaker}, key=str.lower)
    by = f" (classifiers: {', '.join(names)})" if names else ""
    return (
        f"{len(weaker)} of {len(scored)} configurations are weaker than a linear model{by}: the"
        f" linear model {title} scores higher than {worst.title} by"
        f" {with_interval(*lead, signed=True)}. What such rows say about synthetic data, they say"
        " of a classifier that does not see what is in the data.",
    )


def _of_reference(reference: Row, board: Leaderboard) -> tuple[str, ...]:
    score = with_interval(reference.mean, reference.low, reference.high)
    beside = reference.scores.get("slice_balanced_accuracy", math.nan)
    of_slices = f" ({beside:.3f} over single slices)" if math.isfinite(beside) else ""
    text = (
        f"Without synthetic data the best configuration ({reference.title}) reaches a balanced"
        f" accuracy of {score} on {reference.patients} held-out patients{of_slices}."
    )
    if CHANCE in reference.flags:
        text += (
            f" That interval includes chance (1/{len(board.classes)}): these data and classifiers"
            " have not been shown to tell the classes apart at all, so neither a gain nor its"
            " absence says much about synthetic data."
        )
    return (text,)


def _of_positive_control(board: Leaderboard) -> tuple[str, ...]:
    """Whether the study could have seen a gain: the most real rows that were held back."""
    rows = [row for row in board.positive_controls if row.conclusion is not None]
    if not rows:
        return ()
    most = max(rows, key=lambda row: (row.n_synthetic, row.gain))
    assert most.conclusion is not None
    reference = board.reference
    if most.conclusion.end != "gain":
        can = "this study cannot show even that, so a generator had little to win here"
    elif reference is not None and most.mean < reference.mean:
        can = "this study can see a gain, but real rows do not take that classifier past the best"
    else:
        can = "this study can see a gain"
    return (
        f"Positive control: {most.title}, as many further real rows, changes its own classifier by"
        f" {_gain(most)}: {most.conclusion.text}; {can}.",
    )


def _of_gain(
    shown: Sequence[Row], candidates: Sequence[Row], board: Leaderboard
) -> tuple[str, ...]:
    best = shown[0]
    worth = f", {worth_of(best)}" if best.worth is not None else ""
    return (
        f"The best-placed configuration with synthetic data, {best.title}, raises it to"
        f" {with_interval(best.mean, best.low, best.high)}: a gain of {_gain(best)}{worth}, on the"
        " same patients and over every configuration without synthetic data; the bounds hold for"
        " all rows of the board at once.",
        f"{len(shown)} of {len(candidates)} rankable configurations with synthetic data show a"
        f" gain. {board.tried} configurations were tried in all: confirm it on patients that no"
        " configuration has seen before relying on it.",
    )


def _of_no_gain(candidates: Sequence[Row], board: Leaderboard) -> tuple[str, ...]:
    best = candidates[0]
    text = (
        f"The best-placed configuration with synthetic data, {best.title}, changes it by"
        f" {_gain(best)}, on the same patients."
    )
    below = [flag for flag in (CHANCE, COLLAPSE) if flag in best.flags]
    if below:
        text += f" It is itself {' and shows '.join(below)}."
    elif best.gain_high < 0:
        text += " Its whole interval lies below zero: it makes the classifier worse."
    elif best.ending:
        text += f" That is {best.ending}." if best.ending.startswith("no") else (
            f" That is {best.ending}, in four of five such studies."
        )  # fmt: skip
    if len(candidates) == 1:
        return (text,)
    return text, _tally(candidates, board.margin)


def _tally(candidates: Sequence[Row], margin: float) -> str:
    """How many of the rows end in which way."""
    ends = [row.conclusion.end for row in candidates if row.conclusion is not None]
    ruled_out, open_ = ends.count("no gain"), ends.count("undecided")
    said = [f"a gain above +{margin:g} is ruled out for {ruled_out}"] if ruled_out else []
    said += [f"{open_} are undecided"] if open_ else []
    return (
        f"Of {len(candidates)} rankable configurations with synthetic data,"
        f" {' and '.join(said) or 'none has bounds'}."
    )


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
