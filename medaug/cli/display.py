"""A sweep on the terminal: a live table of its trials, or plain lines where there is none."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, TextIO, cast

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from medaug.cli.display_rows import Row
from medaug.spec import TrialConfig
from medaug.sweep.events import Outcome
from medaug.sweep.trial.bundle import Bundle
from medaug.units import duration

if TYPE_CHECKING:
    from medaug.data.slices import IngestReport

WIDE = 104
"""Columns of a terminal that has room for everything."""
QUIET_S = 30.0
"""Plain lines: say at least this often that epochs are being finished."""
_STYLES = {"done": "green", "stopped": "yellow", "diverged": "yellow", "failed": "bold red"}


class TerminalDisplay:
    """Shows a sweep on a console; a listener, and a context manager around all of it.

    On a terminal: a table of the running trials under one line for the wave. Elsewhere: a line at
    the start of a wave, at the end of each trial, now and then in between, and at the wave's end.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(file=cast(IO[str], _AsLongAsItIsRead(sys.stderr)))
        self._lock = threading.Lock()
        self._live: Live | None = None
        self._rows: dict[str, Row] = {}
        self._lines: list[str | None] = []
        """Keys of the running trials by line of the table; a line that one leaves is free for the
        next, so that the others stay where they are."""
        self._stage = ""
        self._n = self._reused = 0
        self._ended: Counter[str] = Counter()
        self._seconds = 0.0
        """Wall time of all trials that ended, for the estimate of what is left."""
        self._epochs = 0
        """Of the longest trial that ended: what the running ones have before them."""
        self._began = self._last_line = time.monotonic()

    def __enter__(self) -> TerminalDisplay:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop_live()

    def on_wave_start(self, stage: str, n: int, reused: int) -> None:
        with self._lock:
            self._rows.clear()
            self._lines.clear()
            self._ended.clear()
            self._stage, self._n, self._reused = stage, n, reused
            self._seconds, self._epochs = 0.0, 0
            self._began = time.monotonic()
        if reused < n and self.console.is_terminal:
            self._live = Live(get_renderable=self._view, console=self.console, transient=True)
            self._live.start()
        else:
            done_before = f", {reused} done before" if reused else ""
            self._print(f"{stage}: {n} trial{'s' * (n != 1)}{done_before}")

    def on_trial_start(self, config: TrialConfig) -> None:
        self._add_row(config)

    def on_bundle_start(self, bundle: Bundle) -> None:
        self._add_row(bundle)

    def on_place(self, unit: TrialConfig | Bundle, device: str) -> None:
        with self._lock:
            self._rows[unit.key].device = device

    def on_epoch(self, config: TrialConfig, epoch: int, metrics: Mapping[str, float]) -> None:
        with self._lock:
            row = self._rows[config.key]
            row.update(epoch, metrics)
        if self._live is None and time.monotonic() - self._last_line > QUIET_S:
            self._print(f"{self._progress()}, {self._so_far(row, epoch)}")

    def on_trial_end(self, outcome: Outcome) -> None:
        with self._lock:
            if outcome.bundle:
                row = self._rows.get(outcome.bundle)
                if row:
                    row.update((row.epoch or 0) + 1, {})
            else:
                row = self._remove_row(outcome.key)
            self._ended[outcome.status] += 1
            self._seconds += outcome.seconds
            self._epochs = max(self._epochs, outcome.epoch)
        if outcome.why:
            style, name = _STYLES[outcome.status], self._name(row, outcome.key)
            self._print(f"[{style}]{outcome.status}[/] {name}: {escape(outcome.why)}")
        elif outcome.bundle:
            if self._live is None and time.monotonic() - self._last_line > QUIET_S:
                self._print(self._progress())
        elif self._live is None:
            told = self._so_far(row, outcome.epoch) if row else outcome.key
            self._print(f"{self._progress()} {outcome.status} {told} ({duration(outcome.seconds)})")

    def on_bundle_end(self, bundle: Bundle) -> None:
        with self._lock:
            row = self._remove_row(bundle.key)
        if self._live is None and row is not None:
            self._print(f"{self._progress()} {self._place(row)}")

    def _so_far(self, row: Row, epoch: int) -> str:
        return ": ".join(filter(None, (self._place(row), row.reached(epoch))))

    def on_wave_end(self) -> None:
        self._stop_live()
        counts = Counter(self._ended)
        if self._reused:
            counts["done before"] = self._reused
        if self._ended:
            parts = ", ".join(f"{n} {status}" for status, n in counts.items())
            self._print(f"{self._stage}: {parts} in {duration(time.monotonic() - self._began)}")

    def note_blocked(self, stage: str, blocked: int) -> None:
        """Say that trials cannot run because what they read was not made."""
        if blocked:
            self._print(f"{stage}: {blocked} cannot run, their inputs failed")

    def note_ingest(self, report: IngestReport) -> None:
        """Say what was read, and what was left out and where that is written down."""
        classes = ", ".join(
            f"{n} patients {name} ({report.slices[name]} slices)"
            for name, n in report.patients.items()
        )
        self._print(escape(f"{report.path.name}: {classes}"))
        if report.rejects:
            self._print(f"{len(report.rejects)} files left out: see rejects.jsonl beside it")
        for note in report.notes:
            self._print(escape(note))

    def note(self, text: str) -> None:
        """Say something about the study as a whole."""
        self._print(escape(text))

    @contextmanager
    def progress(self, title: str) -> Iterator[Callable[[int, int, str], None]]:
        """A bar for work outside of trials; call what it gives with (done, total, what)."""
        if not self.console.is_terminal:
            with self._plain_progress(title) as advance:
                yield advance
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeRemainingColumn(), console=self.console, transient=True) as bar:
            task = bar.add_task(title, total=None)
            yield lambda done, total, what: bar.update(
                task, completed=done, total=total, description=f"{title} {escape(what)}"
            )

    @contextmanager
    def _plain_progress(self, title: str) -> Iterator[Callable[[int, int, str], None]]:
        began = time.monotonic()

        def advance(done: int, total: int, what: str) -> None:
            if time.monotonic() - self._last_line > QUIET_S:
                self._print(f"{title} {done}/{total} {escape(what)}")

        self._print(title)
        yield advance
        self._print(f"{title}: done in {duration(time.monotonic() - began)}")

    def _add_row(self, unit: TrialConfig | Bundle) -> None:
        with self._lock:
            before = self._rows.get(unit.key)
            self._rows[unit.key] = Row(unit, starts=before.starts + 1 if before else 1)
            if before is None:
                free = self._lines.index(None) if None in self._lines else len(self._lines)
                self._lines[free : free + 1] = [unit.key]

    def _remove_row(self, key: str) -> Row | None:
        if (row := self._rows.pop(key, None)) is not None:
            self._lines[self._lines.index(key)] = None
        return row

    def _view(self) -> Group:
        """A bar and a line for the wave, over a table of its running trials."""
        title = self._title()
        width = min(24, max(8, self.console.width - title.cell_len - 2))
        wave = Table.grid(padding=(0, 2))
        wave.add_column(width=width)
        wave.add_column(no_wrap=True, overflow="ellipsis")
        wave.add_row(ProgressBar(total=self._n, completed=self._ended_so_far(), width=width), title)
        return Group(wave, self._table())

    def _table(self) -> Table:
        """Its columns are as wide as what will stand there, so that nothing moves sideways."""
        with self._lock:
            rows = [self._rows[key] if key else None for key in self._lines]
        wide = self.console.width >= WIDE
        table = Table(
            box=None,
            pad_edge=False,
            padding=(0, 2 if wide else 1, 0, 0),
            width=min(self.console.width, WIDE + 16),
        )
        table.add_column("trial", overflow="ellipsis", no_wrap=True, ratio=1)
        widths = {"fold": 4, "seed": 4, "state": 8, "epoch": 8, "s/epoch": 7, "best": 14, "ETA": 9}
        if not wide:  # an epoch says that a trial runs
            del widths["state"]
        for header, width in widths.items():
            table.add_column(header, justify="right", no_wrap=True, min_width=width)
        table.add_column("device", no_wrap=True, min_width=20 if wide else 7)
        shown = max(3, self.console.height - 7)
        for row in rows[:shown]:
            table.add_row(*(self._cells(row, wide) if row else ()))
        if (hidden := sum(row is not None for row in rows[shown:])) > 0:
            table.add_row(f"and {hidden} more")
        return table

    def _cells(self, row: Row, wide: bool) -> list[str]:
        pace, left_s = row.seconds_per_epoch(), row.left_s(self._epochs)
        state = [row.state] if wide else []
        epoch = row.progress() if wide else row.progress() or row.state
        return [
            escape(row.unit.title),
            row.fold,
            row.seed,
            *state,
            epoch,
            (f"{pace:.2g}" if pace < 10 else f"{pace:.0f}") if pace else "",
            escape(row.headline()),
            duration(left_s) if left_s else "",
            row.device if wide else row.device.partition(" @ ")[0],
        ]

    def _title(self) -> Text:
        with self._lock:
            rows = list(self._rows.values())
        parts = [f"[bold]{self._progress()}[/]", f"{len(rows)} running"]
        if failed := self._ended["failed"]:
            parts.append(f"[bold red]{failed} failed[/]")
        parts.append(duration(time.monotonic() - self._began))
        if (left_s := self._left_s(rows)) is not None:
            parts.append(f"ETA {duration(left_s)}")
        return Text.from_markup(" · ".join(parts))

    def _left_s(self, rows: Sequence[Row]) -> float | None:
        """Until the wave's end, when each trial takes as long as those that have ended."""
        ended = sum(self._ended.values())
        if not (ended and rows):
            return None
        each_s = self._seconds / ended
        waiting = self._n - self._reused - ended - len(rows)
        running = (row.left_s(self._epochs) for row in rows)
        work_s = waiting * each_s + sum(each_s if s is None else s for s in running)
        return work_s / len(rows)

    def _progress(self) -> str:
        return f"{self._stage} {self._ended_so_far()}/{self._n}"

    def _ended_so_far(self) -> int:
        return self._reused + sum(self._ended.values())

    def _name(self, row: Row | None, key: str) -> str:
        """What trial ``key`` is called, which runs in ``row`` by itself or in a bundle."""
        if row is not None and isinstance(row.unit, Bundle):
            row = next((Row(trial) for trial in row.unit.trials if trial.key == key), None)
        return self._place(row) if row is not None else key

    def _place(self, row: Row) -> str:
        fold = f" fold {row.fold}" if row.fold else ""
        seed = f" seed {row.seed}" if row.seed else ""
        return escape(f"{row.unit.title}{fold}{seed}")

    def _print(self, line: str) -> None:
        self._last_line = time.monotonic()
        self.console.print(line, soft_wrap=True, highlight=False)

    def _stop_live(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


class _AsLongAsItIsRead:
    """A stream whose reader may go (a closed pipe, a terminal that is gone, a full disk): what is
    written afterwards goes nowhere, and nobody who writes is stopped by it."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream or open(os.devnull, "w")  # noqa: SIM115  # None: closed at the start

    def write(self, text: str) -> int:
        with self._until_it_fails():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._until_it_fails():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextmanager
    def _until_it_fails(self) -> Iterator[None]:
        try:
            yield
        except OSError:  # what is in its buffer is written once more when the process ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())


def make_display() -> TerminalDisplay:
    """The display of this process's terminal, on standard error."""
    return TerminalDisplay()
