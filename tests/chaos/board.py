"""What the chaos tests count, and the one table that says it all."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from tests.chaos.matrix import ELSEWHERE, NOT_TESTED, ROWS

NAME = "fault-board"
BUSY = 4.0
"""Load average from which a time says more about the machine than about medaug."""


@dataclass
class Fault:
    """One way to break one thing, as often as it was tried. ``lost`` and ``seconds`` hold a value
    for each fault where work can be lost, or where something has to recover."""

    row: int
    name: str
    injected: int = 0
    survived: int = 0
    lost: list[float] = field(default_factory=list)
    """Epochs begun in vain."""
    seconds: list[float] = field(default_factory=list)
    """From the fault to what the row promises: the next new epoch, the exit, the detection."""
    late: list[str] = field(default_factory=list)

    def inject(self, n: int = 1) -> None:
        self.injected += n

    def survive(self, n: int = 1, *, lost: Iterable[float] = (), seconds: float = -1.0) -> None:
        self.survived += n
        self.lost += lost
        self.seconds += [seconds] if seconds >= 0 else []

    def judge(self, seconds: float, within_s: float) -> None:
        """Hold a time against its promise; on a busy machine it is printed and does not fail."""
        if seconds > within_s:
            said = f"row {self.row}, {self.name}: {seconds:.1f} s of {within_s:g} s promised"
            self.late.append(said)
            assert os.getloadavg()[0] > BUSY, said


class Board:
    """A pytest plugin: keeps every :class:`Fault`, counts tests of other folders that prove a row
    as one fault each, and prints the table if ``path``, its JSON file, is given."""

    def __init__(self, path: Path | None = None, *, partial: bool = False) -> None:
        self._path = path
        self._partial = partial
        self._faults: dict[tuple[int, str], Fault] = {}
        self._began = time.monotonic()

    def fault(self, row: int, name: str) -> Fault:
        assert row in ROWS
        return self._faults.setdefault((row, name), Fault(row, name))

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "teardown":
            self._write()  # now: the run itself may be killed
        if report.when != "call" and not report.failed:
            return
        for row, tests in ELSEWHERE.items():
            if report.nodeid.partition("[")[0] in tests:
                fault = self.fault(row, ROWS[row])
                fault.inject()
                fault.survive(int(report.passed))

    @pytest.hookimpl
    def pytest_terminal_summary(self) -> None:
        if self._path is None:
            return
        faults = self._sorted()
        console = Console(width=max(100, Console().width))
        rows = {fault.row for fault in faults} if self._partial else set(ROWS)
        console.print(_table(faults, rows, title=f"chaos on {self._machine()}"))
        for said in (said for fault in faults for said in fault.late):
            console.print(f"late on a busy machine: {said}")
        console.print(f"table: {self._path}")

    def _write(self) -> None:
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            value = {
                "machine": self._machine(),
                "faults": [asdict(fault) for fault in self._sorted()],
                "not_tested": NOT_TESTED,
            }
            self._path.write_text(json.dumps(value, indent=1))

    def _sorted(self) -> list[Fault]:
        return sorted(self._faults.values(), key=lambda fault: (fault.row, fault.name))

    def _machine(self) -> str:
        minutes = (time.monotonic() - self._began) / 60
        load = "/".join(f"{load:.1f}" for load in os.getloadavg())
        return f"{os.cpu_count()} cores, load {load}, {minutes:.1f} min"


def _table(faults: list[Fault], rows: set[int], title: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("row", justify="right")
    table.add_column("fault", overflow="fold")
    for name in ("injected", "survived", "epochs lost\nmean / max", "seconds\nmedian / p95"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in sorted(rows):
        mine = [fault for fault in faults if fault.row == row]
        for fault in mine:
            table.add_row(*_cells(fault))
        if not mine:
            why = NOT_TESTED.get(row, "did not run")
            table.add_row(str(row), f"{ROWS[row]} [dim]({why})[/dim]", "–", "–", "–", "–")
    return table


def _cells(fault: Fault) -> list[str]:
    lost = f"{statistics.fmean(fault.lost):.2f} / {max(fault.lost):.0f}" if fault.lost else "–"
    times = sorted(fault.seconds)
    p95 = times[min(len(times) - 1, int(0.95 * len(times)))] if times else 0.0
    spent = f"{statistics.median(times):.1f} / {p95:.1f}" if times else "–"
    survived = f"{fault.survived:,}"
    if fault.survived != fault.injected:
        survived = f"[bold red]{survived}[/bold red]"
    return [str(fault.row), fault.name, f"{fault.injected:,}", survived, lost, spent]
