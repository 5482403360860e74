"""All rows of a run side by side: gains, conclusions, exchange rates, flags and ranks.

A row with synthetic data gains what it is better than the best of everything that needs none, over
all classifiers of the study; the bounds hold for all such rows at once
(:mod:`medaug.metrics.bounds`). The positive control, held-back real rows, is no such reference: it
shows what the study could have seen.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from medaug.metrics.board import Board
from medaug.metrics.bounds import Bounds, Family, simultaneous_bounds
from medaug.metrics.conclusion import conclude
from medaug.metrics.exchange import ExchangeRate, exchange_rate
from medaug.results.configuration import Configuration
from medaug.results.gate import Peer, gate, unchecked
from medaug.results.rows import (
    BELOW_GAUSSIAN,
    CHANCE,
    COLLAPSE,
    MODE_COLLAPSE,
    MORE_REAL,
    POSITIVE,
    REFERENCE,
    UNKNOWN,
    UNRANKABLE,
    WEAKER,
    Row,
    verdict,
)
from medaug.spec import StudySpec


def judge(peers: Sequence[Peer], board: Board, study: StudySpec) -> list[Row]:
    """The rows with all that follows from comparing them, best first.

    ``board`` holds those that can be compared, by title (:func:`comparable`).
    """
    by_size: dict[int | None, list[Peer]] = {}
    for peer in peers:
        by_size.setdefault(peer[0].train_rows, []).append(peer)
    families = {size: _family(group, board) for size, group in by_size.items()}
    bounds = simultaneous_bounds(board, [*families.values()])
    yardstick = _best_linear(peers, board)
    judged = []
    for row, found in peers:
        family, group = families[row.train_rows], by_size[row.train_rows]
        reasons = gate(row, found, group, study)
        if row.title in board.titles:
            row = _compared(row, family, bounds, board, study.sweep.margin)
            if row.kind == MORE_REAL:
                row = _over_none(row, group, board, study.sweep.margin)
            row = replace(row, worth=_worth(row, peers, board))
            row = _beside_linear(row, yardstick.get(row.train_rows), board)
        if any(trial.classified.lineage == "unknown" for trial in found.done):
            row = _of_unknown_lineage(row)
        if reasons:  # what cannot be compared shows its numbers, and concludes nothing
            row = replace(row, conclusion=None, worth=None)
        said = [*_flags(row, study), *(unchecked(row, group) if not reasons else [])]
        judged.append(replace(row, flags=(*reasons, *said)))
    return _ranked(judged)


def comparable(peers: Sequence[Peer]) -> dict[str, Configuration]:
    """By title: the complete configurations of the split that most of them have."""
    complete = [
        (row, found)
        for row, found in peers
        if found.hits is not None
        and found.hits.complete
        and row.replicates == row.expected
        and len(found.splits) == 1
    ]
    splits = Counter(split for _, found in complete for split in sorted(found.splits))
    if not splits:
        return {}
    usual = max(sorted(splits), key=splits.__getitem__)
    return {row.title: found for row, found in complete if found.splits == {usual}}


def _family(group: Sequence[Peer], board: Board) -> Family:
    rows = [row for row, _ in group if row.title in board.titles]
    # Of equal controls the first is the reference: that which adds least.
    rows.sort(key=lambda row: (row.n_synthetic, row.title))
    return Family(
        tuple(row.title for row in rows if row.synthetic),
        tuple(row.title for row in rows if not row.synthetic and row.kind != MORE_REAL),
    )


def _compared(
    row: Row, family: Family, bounds: dict[str, Bounds], board: Board, margin: float
) -> Row:
    """The row's gain over the best control of its size."""
    if not family.controls:
        return row
    best = max(family.controls, key=board.mean)
    if row.title == best:
        return replace(row, gain=0.0, gain_low=0.0, gain_high=0.0, reference=best)
    if row.title in bounds:
        found = bounds[row.title]
        row = replace(row, gain=found.gain, gain_low=found.low, gain_high=found.high)
        return replace(row, reference=found.reference, conclusion=conclude(found, margin))
    contrast = board.contrast(row.title, best)
    low, high = contrast.bounds()
    return replace(row, gain=contrast.estimate, gain_low=low, gain_high=high, reference=best)


def _worth(row: Row, peers: Sequence[Peer], board: Board) -> ExchangeRate | None:
    """What the gain is worth on the learning curve of a classifier without added rows.

    That of the reference; where it has none, as one that was scored at a single size, the row's.
    """
    if not row.synthetic or not math.isfinite(row.gain) or row.reference is None:
        return None
    rows = [other for other, _ in peers]
    for classifier in (_classifier_of(row.reference, rows), row.classifier):
        curve = learning_curve(rows, classifier, board.titles)
        start = curve_start(curve, row)
        if start is not None and len(curve) > 1:
            break
    else:
        return None
    points = [other.title for other in curve.values()]
    return exchange_rate(
        list(curve),
        np.array([board.mean(title) for title in points]),
        np.stack([board.resampled(title) for title in points], axis=1),
        row.gain,
        board.resampled(row.title) - board.resampled(row.reference),
        start,
    )


def _over_none(row: Row, group: Sequence[Peer], board: Board, margin: float) -> Row:
    """The positive control with its gain over the same classifier without added rows.

    Whether a gain that is there is seen is a question to one classifier: another one, which is the
    reference, may have little to learn from further rows. It is a single comparison that was
    planned, not the best of many.
    """
    for other, _ in group:
        same = other.classifier == row.classifier and other.title in board.titles
        if same and _is_unaugmented(other, row.train_rows):
            contrast = board.contrast(row.title, other.title)
            gain, reach = contrast.estimate, contrast.reach(0.05)
            own = Bounds(gain, gain - reach, gain + reach, other.title, contrast)
            return replace(
                row,
                gain=gain,
                gain_low=own.low,
                gain_high=own.high,
                reference=other.title,
                conclusion=conclude(own, margin),
            )
    return row


def _classifier_of(title: str, rows: Sequence[Row]) -> str:
    return next(row.classifier for row in rows if row.title == title)


def curve_start(curve: Mapping[int, Row], row: Row) -> int | None:
    """The real rows of the unaugmented configuration of the row's training-set size."""
    sizes = (n for n, each in curve.items() if _is_unaugmented(each, row.train_rows))
    return next(sizes, None)


def _is_unaugmented(row: Row, train_rows: int | None) -> bool:
    return row.kind == "none" and row.train_rows == train_rows


def learning_curve(
    rows: Sequence[Row], classifier: str, titles: Sequence[str] | None = None
) -> dict[int, Row]:
    """Real training rows -> the classifier's row on them alone, ascending.

    The arm ``none`` at every training-set size, and the positive control where no such size has
    as many rows. ``titles``: those that may be used.
    """
    found: dict[int, Row] = {}
    for row in sorted(rows, key=lambda row: (row.kind != "none", row.title)):
        usable = row.replicates == row.expected if titles is None else row.title in titles
        if not usable or row.classifier != classifier or row.kind not in ("none", MORE_REAL):
            continue
        if row.real_rows is not None:
            found.setdefault(row.real_rows, row)
    return dict(sorted(found.items()))


def _best_linear(peers: Sequence[Peer], board: Board) -> dict[int | None, str]:
    """By training-set size: the linear configuration without synthetic data that scores best."""
    best: dict[int | None, str] = {}
    for row, _ in peers:
        if not row.linear or row.synthetic or row.kind == MORE_REAL:
            continue
        if row.title not in board.titles:
            continue
        known = best.get(row.train_rows)
        if known is None or board.mean(row.title) > board.mean(known):
            best[row.train_rows] = row.title
    return best


def _beside_linear(row: Row, best: str | None, board: Board) -> Row:
    if best is None or row.linear or row.kind == MORE_REAL:
        return row
    contrast = board.contrast(best, row.title)
    low, high = contrast.bounds()
    return replace(row, weaker_by=(best, contrast.estimate, low, high)) if low > 0 else row


def _of_unknown_lineage(row: Row) -> Row:
    """Nobody says what its generator has seen, so its gain may be that of the scored patients."""
    gained = row.conclusion is not None and row.conclusion.end == "gain"
    return replace(
        row, unknown_lineage=True, worth=None, conclusion=None if gained else row.conclusion
    )


def _flags(row: Row, study: StudySpec) -> list[str]:
    """What the row's own numbers say against it."""
    if not row.replicates:
        return []
    recalls = [row.scores.get(f"recall/{name}", math.nan) for name in study.data.classes]
    flags = [WEAKER] if row.weaker_by is not None else []
    flags += verdict(row.low, recalls)
    if row.reference is not None and row.reference == row.title:
        flags.append(REFERENCE)
    if row.kind == MORE_REAL:
        flags.append(POSITIVE)
    flags += [UNKNOWN] if row.unknown_lineage else []
    flags += [f"{MODE_COLLAPSE} in {row.collapsed} generators"] if row.collapsed else []
    return flags + ([BELOW_GAUSSIAN] if row.below_gaussian else [])


def _ranked(rows: Sequence[Row]) -> list[Row]:
    """By training-set size, the largest first, since each is a comparison of its own: best first
    with their ranks; then the positive controls, then what cannot be ranked."""
    by_size: dict[float, list[Row]] = {}
    for row in rows:
        by_size.setdefault(row.train_rows or math.inf, []).append(row)
    return [row for size in sorted(by_size, reverse=True) for row in _ranked_alike(by_size[size])]


def _ranked_alike(rows: Sequence[Row]) -> Iterator[Row]:
    ranked = sorted((row for row in rows if _rankable(row)), key=_order)
    yield from (replace(row, rank=place) for place, row in enumerate(ranked, start=1))
    yield from sorted(
        (row for row in rows if not _rankable(row)),
        key=lambda row: (POSITIVE not in row.flags, row.title),
    )


def _rankable(row: Row) -> bool:
    return POSITIVE not in row.flags and not any(flag.startswith(UNRANKABLE) for flag in row.flags)


def _order(row: Row) -> tuple[float, float, int, float]:
    """Rows above the floor first, then by gain; ties go to less data, then to less time."""
    below_floor = CHANCE in row.flags or COLLAPSE in row.flags
    known = row.gain_low if math.isfinite(row.gain_low) else -math.inf
    return below_floor, -known, row.n_synthetic, row.device_hours
