"""One writer per experiment: a lease that is renewed, expires, and is taken over by one only.

Leases are files ``lease-000001.json``, ``lease-000002.json``, …; the highest number counts. A new
one is made with ``link``, which fails when the name exists: of several processes that find the
last lease released or expired, one makes the next. This needs no file locks, which network file
systems have or have not. In a bucket they are objects, and the next one is made by a write that
succeeds only where there is none yet (``If-None-Match``).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil

from medaug.errors import IntegrityError, UserError
from medaug.storage import storage_at
from medaug.storage.faults import storage_faults
from medaug.storage.files import private_folder

STALE_S = 90.0
RENEW_S = 15.0


@dataclass(frozen=True)
class Holder:
    """Who holds a lease. ``machine`` tells whether ``pid`` can be looked up from here."""

    host: str
    pid: int
    since: str
    machine: str
    started: float
    """When the process began: a pid alone may belong to a later one."""
    released: bool = False
    nonce: str = ""
    """Nobody else's."""

    def is_dead(self) -> bool:
        """Certainly dead: a process of this machine that is no more."""
        if self.machine != _machine():
            return False
        try:
            return abs(psutil.Process(self.pid).create_time() - self.started) > 1.0
        except psutil.NoSuchProcess:
            return True

    def ask_to_stop(self) -> bool:
        """Send it SIGTERM; False when it is not a process that can be reached from here."""
        if self.machine != _machine() or self.is_dead():
            return False
        psutil.Process(self.pid).terminate()
        return True

    def __str__(self) -> str:
        return f"host {self.host}, pid {self.pid}, since {self.since}"


class Lease:
    """The right to write into ``experiment``, renewed by a background thread until released."""

    def __init__(
        self, experiment: Path, *, stale_s: float = STALE_S, renew_s: float = RENEW_S
    ) -> None:
        self._experiment = experiment
        self._slots = _Slots(experiment)
        self._stale_s = stale_s
        self._renew_s = renew_s
        self._number = 0
        self._me = _me()
        self._done = threading.Event()
        self._thread: threading.Thread | None = None
        self.lost = threading.Event()
        """Set when another process took over, which happens to one that was stopped for long."""

    @property
    def number(self) -> int:
        """Larger than that of everybody who had it before."""
        return self._number

    def __enter__(self) -> Lease:
        self.acquire()
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()

    def acquire(self) -> None:
        """Take the lease.

        Raises:
            UserError: another process holds it (names host, pid and since when).
            EnvironmentFault: the experiment's folder cannot be written.
        """
        with storage_faults(self._experiment):
            private_folder(self._experiment)
            self._number = self._take(self._newest())
            for number in self._slots.numbers():
                if number < self._number:
                    self._slots.remove(number)
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Give it back; the file stays, so that numbers only ever grow."""
        self._done.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            if not self.lost.is_set():
                with contextlib.suppress(OSError):  # it expires by itself
                    self._slots.replace(self._number, replace(self._me, released=True))

    def holder(self) -> Holder | None:
        """Who holds it now, or None. Where nothing can be written, who held it last."""
        try:
            newest = self._newest()
        except FileNotFoundError:
            return None
        try:
            return self._active(newest)
        except OSError:  # no probe of the storage's clock
            return self._holder(newest)

    def _active(self, number: int) -> Holder | None:
        """Who holds lease ``number``, unless it was given back or nobody is there any more."""
        holder = self._holder(number) if number else None
        if holder is None or holder.released or holder.is_dead() or self._expired(number):
            return None
        return holder

    def _take(self, newest: int) -> int:
        if (holder := self._active(newest)) is not None:
            raise self._refusal(holder)
        if not self._slots.make(newest + 1, self._me):
            raise self._refusal(self._holder(newest + 1))
        if (higher := self._newest()) > newest + 1:  # we were slow: others came and went meanwhile
            self._slots.remove(newest + 1)
            raise self._refusal(self._holder(higher))
        return newest + 1

    def _refusal(self, holder: Holder | None) -> UserError:
        return UserError(
            f"experiment {self._experiment.name} is running ({holder or 'another process'}); "
            "wait for it, stop it, or choose another name"
        )

    def _renew(self) -> None:
        while not self._done.wait(self._renew_s):
            with contextlib.suppress(OSError):  # storage away for a moment; staleness decides
                if self._newest() > self._number:
                    self.lost.set()
                    return
                self._slots.renew(self._number, self._me)

    def _expired(self, number: int) -> bool:
        """Not renewed for ``stale_s``, by the storage's clock: those of the hosts may differ."""
        age_s = self._slots.age_s(number)
        return age_s is not None and age_s > self._stale_s

    def _newest(self) -> int:
        return max(self._slots.numbers(), default=0)

    def _holder(self, number: int) -> Holder | None:
        try:
            return Holder(**json.loads(self._slots.read(number) or b""))
        except (IntegrityError, ValueError, TypeError, RecursionError):
            return None


class _Slots:
    """The leases of the experiment in ``folder``, by number."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._storage = storage_at(folder)

    def numbers(self) -> list[int]:
        return _numbers_of(self._storage.files(self._folder))

    def read(self, number: int) -> bytes | None:
        return self._storage.read(self._path(number))

    def make(self, number: int, holder: Holder) -> bool:
        """False when there is one."""
        return self._storage.create(self._path(number), _content(holder))

    def replace(self, number: int, holder: Holder) -> None:
        self._storage.put(self._path(number), _content(holder))

    def renew(self, number: int, holder: Holder) -> None:
        self._storage.touch(self._path(number), _content(holder))

    def remove(self, number: int) -> None:
        self._storage.remove(self._path(number))

    def age_s(self, number: int) -> float | None:
        return self._storage.age_s(self._path(number))

    def _path(self, number: int) -> Path:
        return self._folder / _name_of(number)


def _name_of(number: int) -> str:
    return f"lease-{number:06d}.json"


def _numbers_of(names: Iterable[str]) -> list[int]:
    found = (re.fullmatch(r"lease-(\d+)\.json", name) for name in names)
    return [int(name[1]) for name in found if name]


def _content(holder: Holder) -> bytes:
    return json.dumps(asdict(holder)).encode()


def _me() -> Holder:
    return Holder(
        host=socket.gethostname(),
        pid=os.getpid(),
        since=time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        machine=_machine(),
        started=psutil.Process().create_time(),
        nonce=uuid.uuid4().hex,
    )


def _machine() -> str:
    """Differs wherever the same pid is another process: machines, their boots, containers."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):  # elsewhere than on Linux the name has to do
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(os.stat("/proc/self/ns/pid").st_ino))
    return "/".join(parts)
