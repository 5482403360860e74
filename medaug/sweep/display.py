"""What a person sees of a study while it runs, and a display that shows nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol

from medaug.spec import TrialConfig
from medaug.sweep.events import Listener, Outcome

if TYPE_CHECKING:
    from medaug.data.slices import IngestReport
    from medaug.sweep.trial.bundle import Bundle

Advance = Callable[[int, int, str], None]
"""(done, total, what is at hand)"""


class Display(Listener, Protocol):
    """Shows a study: a listener of its sweep, told of what happens outside of trials, too."""

    def note(self, text: str) -> None:
        """Say something about the study as a whole."""

    def note_ingest(self, report: IngestReport) -> None:
        """Say what was read, and what was left out and where that is written down."""

    def note_blocked(self, stage: str, blocked: int) -> None:
        """Say that trials cannot run because what they read was not made."""

    def progress(self, title: str) -> AbstractContextManager[Advance]:
        """A bar for work outside of trials; call what it gives with (done, total, what)."""


class Silent:
    """A :class:`Display` that shows nothing."""

    def on_wave_start(self, stage: str, n: int, reused: int) -> None: ...
    def on_trial_start(self, config: TrialConfig) -> None: ...
    def on_bundle_start(self, bundle: Bundle) -> None: ...
    def on_bundle_end(self, bundle: Bundle) -> None: ...
    def on_place(self, unit: TrialConfig | Bundle, device: str) -> None: ...
    def on_epoch(self, config: TrialConfig, epoch: int, metrics: Mapping[str, float]) -> None: ...
    def on_trial_end(self, outcome: Outcome) -> None: ...
    def on_wave_end(self) -> None: ...
    def note(self, text: str) -> None: ...
    def note_ingest(self, report: IngestReport) -> None: ...
    def note_blocked(self, stage: str, blocked: int) -> None: ...

    @contextmanager
    def progress(self, title: str) -> Iterator[Advance]:
        yield lambda done, total, what: None
