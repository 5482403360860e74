"""Two runs side by side: what differs in their settings, and each configuration that both have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.text import Text

from medaug.errors import UserError
from medaug.metrics.board import Board
from medaug.metrics.hits import Hits
from medaug.ownership.identity import differing
from medaug.results.configuration import Configuration
from medaug.results.leaderboard import leaderboard_and_trials
from medaug.results.numbers import with_interval
from medaug.results.records import read_study
from medaug.results.rows import Leaderboard, Row, without_nan
from medaug.results.table import Line, laid_out
from medaug.spec.loader import NOT_OF_RESULTS
from medaug.storage.json_files import read_json

FIRST_OF_ALL = ("data", "split", "protocol")
"""Sections without which two scores are not of the same question."""
NOT_TOLD = frozenset({"name", "storage", "paper", *NOT_OF_RESULTS})
"""What no result depends on."""
PLACES = frozenset({"root", "table"})
"""Keys of ``data`` that say where scans lie; which scans they are, the name of their store says."""
MOST_TOLD = 6


@dataclass(frozen=True)
class Difference:
    """A setting, or a fact about the data, that is not the same in both runs."""

    key: str
    first: Any
    second: Any

    @property
    def section(self) -> str:
        return self.key.partition(".")[0]

    @property
    def text(self) -> str:
        return f"{self.key}: {_plain(self.first)} | {_plain(self.second)}"


@dataclass(frozen=True)
class Paired:
    """A configuration by its title, as each run has it."""

    title: str
    first: Row | None
    second: Row | None
    difference: tuple[float, float, float] | None = None
    """Balanced accuracy of the second less the first on the same patients, with its 95 %
    interval."""
    why: str = ""
    """Why there is no such interval."""

    def to_json(self) -> dict[str, Any]:
        rows = {name: row.to_json() if row else None for name, row in self._rows.items()}
        named = dict(zip(("mean", "low", "high"), self.difference or (), strict=False)) or None
        body = {"title": self.title, **rows, "difference": named, "why": self.why or None}
        whole: dict[str, Any] = without_nan(body)
        return whole

    @property
    def _rows(self) -> dict[str, Row | None]:
        return {"first": self.first, "second": self.second}


@dataclass(frozen=True)
class Comparison:
    first: Leaderboard
    second: Leaderboard
    differences: tuple[Difference, ...]
    """What makes the two other questions (:data:`FIRST_OF_ALL`) comes first."""
    patients: tuple[int, int, int]
    """That are scored by the first, by the second, by both."""
    rows: tuple[Paired, ...]
    """In the order of the first leaderboard, then of the second."""

    def to_json(self) -> dict[str, Any]:
        boards = {"first": self.first, "second": self.second}
        return {
            **{name: {"run": b.run, "protocol": b.protocol} for name, b in boards.items()},
            "differences": [asdict(each) for each in self.differences],
            "patients": dict(zip((*boards, "both"), self.patients, strict=True)),
            "rows": [row.to_json() for row in self.rows],
        }


def compare(first: Path, second: Path) -> Comparison:
    """The runs in two folders, whose rows are matched by their titles.

    Where both score the same patients, a difference has a paired interval: other patients would
    move both scores alike. Its replicates are those of :class:`medaug.metrics.board.Board`.

    Raises:
        UserError: there is no such run, or both are one.
    """
    if first.resolve() == second.resolve():
        raise UserError(f"compare: {first.name} twice; name two runs")
    (one, ours), (two, theirs) = map(leaderboard_and_trials, (first, second))
    told = {row.title: row for row in one.rows}, {row.title: row for row in two.rows}
    pairs = {}
    alike: dict[frozenset[tuple[str, int]], list[str]] = {}
    for title in dict.fromkeys([*told[0], *told[1]]):
        rows = told[0].get(title), told[1].get(title)
        why = _unpaired(ours.get(title), theirs.get(title), (one, two))
        pairs[title] = Paired(title, *rows, why=why)
        if not why:
            alike.setdefault(_units(_hits(ours[title])), []).append(title)
    for titles in alike.values():
        for title, difference in _differences(titles, ours, theirs):
            pairs[title] = Paired(title, told[0][title], told[1][title], difference)
    scored = _patients(ours), _patients(theirs)
    return Comparison(
        one,
        two,
        tuple(differences(first, second)),
        (len(scored[0]), len(scored[1]), len(scored[0] & scored[1])),
        tuple(pairs.values()),
    )


def differences(first: Path, second: Path) -> Iterator[Difference]:
    """What is not the same in the two runs' data and settings, the gravest first."""
    stores = [(read_json(folder / "data.json") or {}).get("slices") for folder in (first, second)]
    if stores[0] != stores[1]:
        yield Difference("data", *stores)
    one, two = (read_study(folder).canonical() for folder in (first, second))
    found = [Difference(*each) for each in differing(one, two)]
    found = [d for d in found if d.section not in NOT_TOLD]
    found = [d for d in found if d.key not in {f"data.{key}" for key in PLACES}]
    yield from sorted(found, key=lambda d: _rank(d.section))


def render(found: Comparison, width: int | None = None) -> str:
    """The comparison as text."""
    one, two = found.first, found.second
    heading = Text(f"A: {one.run} (protocol {one.protocol})", style="bold")
    heading.append(f"\nB: {two.run} (protocol {two.protocol})")
    grave = [d for d in found.differences if d.section in FIRST_OF_ALL]
    rest = [d for d in found.differences if d.section not in FIRST_OF_ALL]
    said = [*_told("Data, protocol or split differ", grave), *_told("Other settings", rest)]
    of_first, of_second, both = found.patients
    if (of_first, of_second) != (both, both):
        said.append(f"Patients scored: {of_first} by A, {of_second} by B, {both} by both.")
    said = said or ["Data, protocol, split and settings are the same."]
    lines = [_line(row) for row in found.rows]
    header = Line("", "configuration", ("A", "B", "B − A"))
    note = (
        "Balanced accuracy of patients. B − A is on the same patients, with the 95 % interval of"
        " that row alone, over patients, seeds and draws: of twenty rows that do not differ, one"
        " has an interval without zero by chance. A row is no better in one run because it is"
        " ranked higher there; the gains over each run's own controls are on its leaderboard."
    )
    told = [Text(line, style="yellow") for line in said]
    return laid_out(width, [heading, Text(), *told, Text(), header, *lines, Text(), Text(note)])


def _line(row: Paired) -> Line:
    scores = [
        with_interval(each.mean, each.low, each.high) if each else "–"
        for each in (row.first, row.second)
    ]
    gap = with_interval(*row.difference, signed=True) if row.difference else ""
    ends = [each.ending.split(":")[0] for each in (row.first, row.second) if each and each.ending]
    changed = f"A: {ends[0]}, B: {ends[1]}" if len(set(ends)) == 2 else ""
    said = f"no paired interval: {row.why}" if row.why else ""
    return Line("", row.title, (*scores, gap), [said] if said else [], changed)


def _told(what: str, found: list[Difference]) -> list[str]:
    """A line for each, as A | B; of many the first ones."""
    if not found:
        return []
    shown = [f"  {each.text}" for each in found[:MOST_TOLD]]
    more = len(found) - len(shown)
    return [f"{what} (A | B):", *shown, *([f"  and {more} more (--json)"] if more else [])]


def _plain(value: Any) -> str:
    text = "–" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:37]}…"


def _rank(section: str) -> int:
    return FIRST_OF_ALL.index(section) if section in FIRST_OF_ALL else len(FIRST_OF_ALL)


def _unpaired(
    ours: Configuration | None, theirs: Configuration | None, boards: tuple[Leaderboard, ...]
) -> str:
    """Why two configurations of one title have no paired interval; nothing where they have."""
    if ours is None or theirs is None:
        return f"only in {'B' if ours is None else 'A'}"
    if boards[0].classes != boards[1].classes:
        return "other classes"
    hits = ours.hits, theirs.hits
    if hits[0] is None or hits[1] is None:
        return f"not scored in {'A' if hits[0] is None else 'B'}"
    if not all(each.complete for each in hits if each):
        return "some replicate has not scored all patients yet"
    if _units(hits[0]) != _units(hits[1]):
        return "scored on other patients"
    for axis in ("seeds", "draws"):
        mine, its = getattr(hits[0], axis), getattr(hits[1], axis)
        if len(mine) > 1 and len(its) > 1 and not np.array_equal(mine, its):
            return f"other {axis}: {mine.tolist()} and {its.tolist()}"
    return ""


def _differences(
    titles: list[str], ours: Mapping[str, Configuration], theirs: Mapping[str, Configuration]
) -> Iterator[tuple[str, tuple[float, float, float]]]:
    """Second less first of configurations that score the same patients, on one board."""
    hits = {f"A {title}": _hits(ours[title]) for title in titles}
    hits |= {f"B {title}": _hits(theirs[title]) for title in titles}
    board = Board(hits)
    for title in titles:
        contrast = board.contrast(f"B {title}", f"A {title}")
        yield title, (contrast.estimate, *contrast.bounds())


def _hits(found: Configuration) -> Hits:
    assert found.hits is not None
    return found.hits


def _units(hits: Hits) -> frozenset[tuple[str, int]]:
    """Who is scored, under which label."""
    names = hits.patients[hits.patient].tolist()
    return frozenset(zip(names, hits.label.tolist(), strict=True))


def _patients(configurations: Mapping[str, Configuration]) -> set[str]:
    tables = (each.hits for each in configurations.values())
    return {name for hits in tables if hits is not None for name in hits.patients.tolist()}
