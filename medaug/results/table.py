"""The leaderboard for a terminal: one line of numbers a row, its flags below across the width."""

from __future__ import annotations

import io
import itertools
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from medaug.results import external
from medaug.results.numbers import share, with_interval
from medaug.results.published import FLAWS, TITLES, JudgedRow, published
from medaug.results.rows import (
    BELOW_GAUSSIAN,
    CHANCE,
    COLLAPSE,
    LEAK,
    MODE_COLLAPSE,
    POSITIVE,
    RECALL_FLOOR,
    REFERENCE,
    UNCHECKED,
    UNKNOWN,
    UNRANKABLE,
    WEAKER,
    Leaderboard,
    Row,
)

WIDEST = 140
PLAIN_WIDTH = 100
"""Columns where there is no terminal to ask."""
NARROWEST_TITLE = 16
GAP = "  "

NO_BREAK = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True)
class Line:
    """A row of the table: its name, its numbers, and what is said against it."""

    rank: str
    title: str
    numbers: tuple[str, ...]
    flags: Sequence[str] = ()
    ending: str = ""
    """How the comparison ends, before the flags."""


def render(board: Leaderboard, width: int | None = None) -> str:
    """The leaderboard as text, best row first, with a note below on how to read it.

    ``width`` in columns, by default the terminal's. Coloured on a terminal only.
    """
    if not board.rows:
        return f"{board.run}: no configuration has been scored yet ({_unfinished(board)})"
    header = Line("", "configuration", ("balanced accuracy", "gain", *board.classes, "n"))
    lines = _lines(board)
    parts = [Text(f"{board.run} (protocol {board.protocol})", style="bold"), Text()]
    others = [part for record in board.external for part in _external(record, board.classes)]
    return laid_out(width, [*parts, header, *lines, *others, Text(), Text(explanation(board))])


def _lines(board: Leaderboard) -> Iterator[Text | Line]:
    """The rows, under a heading each training-set size where there are several."""
    sizes = itertools.groupby(board.rows, key=lambda row: row.train_rows)
    several = len({row.train_rows for row in board.rows}) > 1
    for size, rows in sizes:
        if several:
            yield Text(f"trained on {'all' if size is None else f'{size:,}'} real rows", "italic")
        for row in rows:
            recalls = (share(row.scores.get(f"recall/{name}")) for name in board.classes)
            yield Line(
                str(row.rank or "–"),
                row.title,
                (
                    with_interval(row.mean, row.low, row.high),
                    gain_of(row),
                    *recalls,
                    f"{row.replicates}/{row.expected}",
                ),
                row.flags,
                " · ".join(filter(None, (row.ending, worth_of(row)))),
            )


def _external(record: Mapping[str, Any], classes: tuple[str, ...]) -> Iterator[Text | Line]:
    """Another cohort, whose rows stand under the same columns."""
    yield Text()
    yield Text(external.heading(record), style="bold")
    yield from (Text(f"({remark})") for remark in external.remarks(record))
    yield Text()
    for row in external.rows_of(record, classes):
        said = f"cross-validated {row.before}"
        yield Line("–", row.title, (row.score, row.gain, *row.recalls, ""), ending=said)


def gain_of(row: Row) -> str:
    """The gain with its bounds; nothing for the row that the others are compared with."""
    if REFERENCE in row.flags:
        return ""
    return with_interval(row.gain, row.gain_low, row.gain_high, signed=True)


def worth_of(row: Row) -> str:
    """``worth 37 [0, 85] real rows``; nothing where there is no learning curve to tell."""
    return f"worth {row.worth.text} real rows" if row.worth is not None else ""


def render_published(width: int | None = None) -> str:
    """The four papers' own tables, judged as our rows are, with what is wrong with each."""
    parts: list[Text | Line] = []
    header = Line("", "row", ("accuracy", "balanced accuracy", "gain"))
    for paper, title in TITLES.items():
        parts += [Text(f"Study {paper}: {title}", style="bold"), Text(), header]
        parts += [_published_line(judged) for judged in published(paper)]
        parts += [Text(), Text(f"Known flaws: {'; '.join(FLAWS[paper])}."), Text()]
    note = (
        "Intervals are ours, from the papers' numbers of test patients and images; the gain is of"
        " balanced accuracy where class recalls are at hand, else of accuracy."
    )
    return laid_out(width, [*parts, Text(note)])


def explanation(board: Leaderboard) -> str:
    """What the gain is measured against, and what is said of the rows, in plain sentences."""
    flags = {flag for row in board.rows for flag in row.flags}
    ends = {row.conclusion.end for row in board.rows if row.conclusion and row.synthetic}
    best = sorted(
        {row.reference for row in board.rows if row.reference and POSITIVE not in row.flags}
    )
    against = f" ({best[0]})" if len(best) == 1 else ""
    text = [
        "Scores and recalls (the class columns) are of patients: the slices' mean probability is"
        " called once. Intervals are 95 %, over patients, seeds and draws; n counts replicates"
        " (seeds x draws x folds).",
        "Gain: difference in balanced accuracy, on the same patients, to the best configuration"
        f" without synthetic data{against}; rows rank by its lower bound. Bounds of rows with"
        " synthetic data are one-sided 95 % bounds that hold for all of them at once.",
    ]
    text += [said for end, said in _ends(board.margin).items() if end in ends]
    if any(row.worth is not None for row in board.rows):
        text.append(
            "Worth: the further real training rows that would raise the unaugmented classifier as"
            " much, with a 95 % interval; '≥' and '≤' where its learning curve ends."
        )
    meanings = _meanings(len(board.classes)).items()
    text += [said for name, said in meanings if any(flag.startswith(name) for flag in flags)]
    if any(flag.startswith(UNCHECKED) for flag in flags):
        text.append(
            f"'{UNCHECKED}…': what a row gains by balancing the classes alone has not been told"
            " apart; these controls cost nothing."
        )
    text.append(
        f"{board.tried} configurations were tried: the more, the less the best one's lead means."
    )
    if board.unfinished:
        text.append(f"Incomplete: {_unfinished(board)}.")
    return " ".join(text)


def _ends(margin: float) -> dict[str, str]:
    return {
        "gain": "'gain': the lower bound is above zero.",
        "no gain": f"'no gain above +{margin:g}': the upper bound is below that.",
        "undecided": "'undecided': neither; so many patients, draws or seeds would decide in four"
        " of five such studies.",
    }


def _meanings(n_classes: int) -> dict[str, str]:
    return {
        WEAKER: f"'{WEAKER}': the best linear model on the same data scores higher, with its whole"
        " interval; such a row says more about its classifier than about synthetic data.",
        POSITIVE: f"'{POSITIVE}': real rows that were held back are added, which no generator can"
        " be expected to beat; its gain is over the same classifier without them, and shows whether"
        " this study can see one.",
        CHANCE: f"'{CHANCE}': the interval reaches 1/{n_classes}.",
        COLLAPSE: f"'{COLLAPSE}': a recall is below {RECALL_FLOOR}.",
        MODE_COLLAPSE: f"'{MODE_COLLAPSE}': rows of so many generators hold too little of the real"
        " ones' variety (diversity or recall).",
        BELOW_GAUSSIAN: f"'{BELOW_GAUSSIAN}': a classifier that learns from the network's rows"
        " alone knows less of real patients (TSTR) than one that learns from a Gaussian's, which"
        " takes a second.",
        UNKNOWN: f"'{UNKNOWN}': nobody says what its generator was trained on, perhaps on patients"
        " who are scored; no gain is concluded of it.",
        LEAK: f"'{LEAK}': images that are scored have copies among other patients (leakage.json),"
        " so all scores may be too good.",
    }


def spoken(flags: Iterable[str]) -> list[str]:
    """The flags with all reasons for not being rankable in one."""
    flags = list(flags)
    reasons = [flag.removeprefix(UNRANKABLE) for flag in flags if flag.startswith(UNRANKABLE)]
    rest = [flag for flag in flags if not flag.startswith(UNRANKABLE)]
    return [*([UNRANKABLE + "; ".join(reasons)] if reasons else []), *rest]


def _published_line(judged: JudgedRow) -> Line:
    row = judged.row
    recalls = ", ".join(f"{name} {share(value)}" for name, value in (row.recalls or {}).items())
    gain = None if REFERENCE in judged.flags else judged.gain
    numbers = (
        "" if row.accuracy is None else f"{row.accuracy:.3f}",
        with_interval(*judged.balanced_accuracy) if judged.balanced_accuracy else "",
        with_interval(*gain, signed=True) if gain else "",
    )
    title = f"{row.title} ({recalls})" if recalls else row.title
    return Line("", title, numbers, judged.flags)


def _unfinished(board: Leaderboard) -> str:
    return f"{board.unfinished} trials are unfinished or failed"


def laid_out(width: int | None, parts: Sequence[Text | Line]) -> str:
    terminal = sys.stdout.isatty()
    if width is None:
        width = shutil.get_terminal_size().columns if terminal else PLAIN_WIDTH
    width = min(width, WIDEST)
    console = Console(
        file=io.StringIO(), width=width, force_terminal=terminal, no_color=not terminal
    )
    lines = [part for part in parts if isinstance(part, Line)]
    columns = _widths(lines, width)
    with console.capture() as capture:
        for part in parts:
            for text in _lay_out(part, columns, width) if isinstance(part, Line) else [part]:
                console.print(text, highlight=False)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _widths(lines: Sequence[Line], width: int) -> list[int]:
    """Of rank, title and numbers. The title gives way to the numbers; where it had less than
    :data:`NARROWEST_TITLE` it gets a line of its own, width 0."""
    cells = zip(*((line.rank, line.title, *line.numbers) for line in lines), strict=False)
    widths = [max(map(cell_len, column)) for column in cells]
    others = sum(widths) - widths[1] + len(GAP) * (len(widths) - 1)
    room = min(widths[1], width - others)
    widths[1] = room if room >= min(widths[1], NARROWEST_TITLE) else 0
    return widths


def _lay_out(line: Line, widths: Sequence[int], width: int) -> Iterator[Text]:
    is_header = not (line.flags or line.rank or line.ending)
    rank, indent = f"{line.rank:>{widths[0]}}{GAP}", " " * (widths[0] + len(GAP))
    cells = (f"{cell:<{w}}" for cell, w in zip(line.numbers, widths[2:], strict=True))
    numbers, bold, dim = GAP.join(cells), "" if is_header else "bold", "dim" if is_header else ""
    titles = textwrap.wrap(line.title, widths[1] or width - len(indent))
    if widths[1]:
        first, *rest = titles
        yield Text.assemble(rank, (f"{first:<{widths[1]}}", bold), GAP + numbers, style=dim)
        yield from (Text(indent + title, style=bold) for title in rest)
    else:
        for place, title in enumerate(titles):
            yield Text.assemble(indent if place else rank, (title, bold), style=dim)
        yield Text(indent + numbers, style=dim)
    ending = line.ending.replace(" ", NO_BREAK) if len(line.ending) < width // 2 else line.ending
    said = " · ".join(filter(None, (ending, *_unbroken(line.flags))))
    for text in textwrap.wrap(said, width - len(indent) - 2, break_on_hyphens=False):
        calm = "cyan" if REFERENCE in line.flags else "yellow"
        style = "green" if line.ending.split(" · ")[0] == "gain" and not line.flags else calm
        yield Text(f"{indent}  {text}".replace(NO_BREAK, " "), style=style)


def _unbroken(flags: Iterable[str]) -> Iterator[str]:
    """The flags, of which only the list of reasons may be broken over lines."""
    for flag in spoken(flags):
        yield flag if flag.startswith(UNRANKABLE) else flag.replace(" ", NO_BREAK)
