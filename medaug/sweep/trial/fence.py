"""Keeps a writer that is thought to be dead out of a trial that somebody else has begun again."""

from __future__ import annotations

import uuid
from typing import Any

from medaug.errors import MedaugError
from medaug.storage import storage_at
from medaug.storage.trial_folder import TrialFolder, read_json, write_json

Turn = tuple[int, int]
"""Number of the driver's lease, and of the attempt at the trial under that lease."""


class Superseded(MedaugError):
    """A later attempt has the trial: what this one has is worth nothing."""


class Fence:
    """The right to write into a trial's folder, which its latest attempt has.

    A rank may live on when its driver has lost the lease, or when the cluster has lost sight of
    it. ``attempt.json`` says whose turn it is: a later turn takes the trial over, an earlier one,
    which comes late, is refused. Who writes looks right before; from the look to the rename is a
    moment, as file systems have no way to do both at once.

    Raises:
        Superseded: a later attempt has the trial.
    """

    def __init__(self, folder: TrialFolder, turn: Turn) -> None:
        self._folder = folder
        if newest_turn(folder) > turn:
            raise self._superseded()
        self._mine = {"turn": list(turn), "id": uuid.uuid4().hex}
        write_json(folder.path / "attempt.json", self._mine, durable=False)

    def check(self) -> None:
        """Raises Superseded once another attempt has the trial."""
        if _newest(self._folder) != self._mine:
            raise self._superseded()

    def _superseded(self) -> Superseded:
        return Superseded(f"trial {self._folder.key} is run by a later attempt")


def newest_turn(folder: TrialFolder) -> Turn:
    """Whose turn it is; (0, 0) before the first."""
    lease, attempt = (_newest(folder) or {"turn": (0, 0)})["turn"]
    return lease, attempt


def next_turn(folder: TrialFolder, lease: int) -> Turn:
    """That of one more attempt under ``lease``."""
    newest, attempt = newest_turn(folder)
    return lease, attempt + 1 if newest == lease else 1


def _newest(folder: TrialFolder) -> dict[str, Any] | None:
    path = folder.path / "attempt.json"
    storage_at(path).refresh([path])
    return read_json(path)
