"""Is a rank that has said nothing for long busy, or does it hang?"""

from __future__ import annotations

import contextlib
import time
from typing import Any

import ray
from ray.exceptions import RayError

from medaug.sweep.trial.failures import Failure, GroupFailed


class Watch:
    """Tells a rank that hangs from one that is busy for long.

    A busy rank uses CPU time in its working thread, also while a GPU computes for it: it launches
    the kernels to come. One that waits for a lost peer, a stopped process, a dead disk or a GPU
    that hangs uses none: waits for a GPU sleep (:func:`medaug.train.device.let_waits_sleep`). Ranks
    that wait in a collective are woken by its own timeout, which is the same ``hang_timeout_s`` for
    gloo; NCCL's ends the process without a reason and comes later.
    """

    def __init__(self, ranks: list[Any], timeout_s: float) -> None:
        self._ranks = ranks
        self._timeout_s = timeout_s
        self.beat_s = min(timeout_s / 8, 2.0)
        now = time.monotonic()
        self._next_beat = now + self.beat_s
        self._last_sign = [now] * len(ranks)
        self._pulses = [-1.0] * len(ranks)
        self._asked: list[Any] = [None] * len(ranks)

    def check(self, busy: list[int]) -> None:
        """Look after the ranks that have work; GroupFailed when one gave no sign for so long."""
        now = time.monotonic()
        if now < self._next_beat:
            return
        self._next_beat = now + self.beat_s
        for index in busy:
            pulse = self._answer(index)
            if pulse is not None and pulse > self._pulses[index]:
                self._pulses[index], self._last_sign[index] = pulse, now
            if self._asked[index] is None:
                pulse_of = self._ranks[index].pulse.options(concurrency_group="control")
                self._asked[index] = pulse_of.remote()
        silent = [index for index in busy if now - self._last_sign[index] > self._timeout_s]
        if silent:
            ranks = ", ".join(map(str, silent))
            what = f"no sign of work from rank {ranks} for {self._timeout_s:g} s"
            raise GroupFailed(Failure("hang", what, self._stacks()))

    def _answer(self, index: int) -> float | None:
        asked = self._asked[index]
        if asked is None or not ray.wait([asked], timeout=0)[0]:
            return None
        self._asked[index] = None
        with contextlib.suppress(RayError):  # a dead rank: its call says so itself
            return ray.get(asked)
        return None

    def _stacks(self) -> str:
        asked: list[Any] = [
            rank.stack.options(concurrency_group="control").remote() for rank in self._ranks
        ]
        answered, _ = ray.wait(asked, num_returns=len(asked), timeout=2.0)
        texts = []
        for index, call in enumerate(asked):
            text = "does not answer: stopped, or its machine is gone\n"
            if call in answered:
                with contextlib.suppress(RayError):
                    text = ray.get(call)
            texts.append(f"rank {index}:\n{text}")
        return "\n".join(texts)
