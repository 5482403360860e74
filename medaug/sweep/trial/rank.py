"""One rank of a trial, in its own process: it holds the generator of epochs and draws from it."""

from __future__ import annotations

import contextlib
import gc
import os
import pkgutil
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medaug.spec import TrialConfig
from medaug.storage.bundle_folder import BundleFolder
from medaug.storage.trial_folder import TrialFolder
from medaug.sweep.trial.bundle import BundleRun
from medaug.sweep.trial.failures import Failure, triage
from medaug.sweep.trial.fence import Fence, Superseded, Turn
from medaug.sweep.trial.recorder import Recorder
from medaug.train.allocator import give_back, keep_freed_memory

if TYPE_CHECKING:
    from medaug.train.checkpoint import Checkpoint, Progress
    from medaug.train.world import World

    Work = Callable[[TrialConfig, World, Path, Checkpoint | None], Iterator[Progress]]
    """What the ranks of a trial do."""


def run_trial(
    config: TrialConfig, world: World, storage: Path, resume: Checkpoint | None
) -> Iterator[Progress]:
    """The work of a study's trials, imported where it runs: the driver need not load torch."""
    from medaug import experiment

    return experiment.run_trial(config, world, storage, resume)


@dataclass(frozen=True)
class Place:
    """Where a rank runs, and a port that it keeps there for its group."""

    node_id: str
    host: str
    port: int
    pid: int
    device: str
    """``cpu``, or the GPU by the number that its node gives it: ``cuda:3``."""


@dataclass(frozen=True)
class Epoch:
    """One finished epoch as a rank tells it."""

    epoch: int
    metrics: dict[str, float]
    finished: bool
    """Whether the trial's result is recorded."""
    seconds: dict[str, float] = field(default_factory=dict, compare=False)
    """Of rank 0, by bucket: ``step``, ``data_wait``, ``ckpt_save``."""
    pace: tuple[int, float] = field(default=(0, 0.0), compare=False)
    """Steps, and the seconds that this rank took for its own part of them."""
    remark: str | None = field(default=None, compare=False)
    """What the person at the terminal should know about the group's ranks."""


class Rank:
    """A process of one trial after the other; it stays in its process group between them.

    Failures of a trial come back as values: they are classified here, where their types are known,
    and exceptions of any library need not survive pickling.
    """

    def __init__(
        self,
        cpus: float,
        checkpoint_every_s: float | Literal["auto"],
        *,
        deterministic: bool = False,
        step_graphs: Literal["auto", "always", "never"] = "auto",
    ) -> None:
        threads = max(1, int(cpus))
        os.environ["OMP_NUM_THREADS"] = str(threads)  # before anything loads OpenMP
        import torch

        from medaug.train.device import compute, let_waits_sleep

        torch.set_num_threads(threads)
        compute(deterministic=deterministic)
        let_waits_sleep()
        keep_freed_memory()
        self._world: World | None = None
        self._epochs: Iterator[Progress] | None = None
        self._checkpoint_every_s = checkpoint_every_s
        self._step_graphs = step_graphs
        self._recorder: Recorder | None = None
        """Of rank 0, which writes for all."""
        self._thread: int | None = None
        """Identity of the thread that works; Ray answers :meth:`pulse` in another."""

    def place(self) -> Place:
        import ray

        host = ray.util.get_node_ip_address()
        self._bound = socket.socket()
        self._bound.bind((host, 0))
        port = self._bound.getsockname()[1]
        context = ray.get_runtime_context()
        gpus = context.get_accelerator_ids().get("GPU", [])
        device = f"cuda:{gpus[0]}" if gpus else "cpu"
        return Place(context.get_node_id(), host, port, os.getpid(), device)

    def join(self, rank: int, size: int, host: str, port: int, timeout_s: float, gpu: bool) -> None:
        """Join the group whose rank 0 is at ``host:port``. Ray shows each rank only its own GPU."""
        import ray

        from medaug.train.world import init_group

        self._thread = threading.get_ident()
        if interface := interface_of(ray.util.get_node_ip_address()):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        device = "cuda:0" if gpu else "cpu"
        store = self._store(host, port, size, rank == 0, timeout_s) if size > 1 else None
        self._bound.close()
        world = init_group(rank, size, host, port, timeout_s, device, store=store)
        self._world = replace(world, step_graphs=self._step_graphs)
        gc.freeze()  # libraries stay: collecting after each trial need not look at them

    def _store(self, host: str, port: int, size: int, is_main: bool, timeout_s: float) -> Any:
        """Where the ranks find each other: a server of rank 0, at the port that it has kept."""
        from torch.distributed import TCPStore

        timeout, bound = timedelta(seconds=timeout_s), self._bound.detach() if is_main else None
        return TCPStore(host, port, size, is_main, timeout, master_listen_fd=bound)

    def begin(self, folder: TrialFolder, storage: Path, work: str, turn: Turn) -> int | Failure:
        """Make ready to draw epochs of a trial, from its ledger on; returns the epoch there.

        ``work`` is the ``module:function`` of a :data:`Work`, or where ``folder`` is that of a
        bundle, of a :data:`medaug.sweep.trial.bundle.BundleWork`; its epochs are trials that ended.
        """
        from medaug.train.checkpoint import Ledger

        assert self._world is not None
        try:
            self.end()
            folder.refresh()
            fence = None
            if self._world.is_main:  # before it looks for the newest checkpoint: none comes after
                fence = Fence(folder, turn)
                self._recorder = Recorder(folder, self._checkpoint_every_s, fence)
            if isinstance(folder, BundleFolder):
                run = BundleRun(folder, self._world, storage, pkgutil.resolve_name(work), fence)
                self._epochs = run.epochs()
                return run.n_ended
            config = folder.config()
            resume = Ledger(folder.path).latest(config.key)
            self._epochs = pkgutil.resolve_name(work)(config, self._world, storage, resume)
        except Exception as error:
            return triage(error)
        return resume.epoch if resume else 0

    def advance(self) -> Epoch | Failure:
        """Train one epoch. Rank 0 writes it down before anybody hears of it."""
        from medaug.store.waiting import waited_s
        from medaug.train.pace import PACE

        assert self._epochs is not None
        started, waited_before = time.perf_counter(), waited_s()
        try:
            progress = next(self._epochs)
            trained = time.perf_counter()
            if self._recorder is not None:
                self._recorder.record(progress, seconds=trained - started)
        except StopIteration:
            return Failure("error", "the trial ended without a result")
        except Exception as error:
            return triage(error)
        waited = waited_s() - waited_before
        seconds = {
            "data_wait": waited,
            "ckpt_save": time.perf_counter() - trained,
            "step": trained - started - waited,
        }
        finished = progress.result is not None
        return Epoch(progress.epoch, progress.metrics, finished, seconds, PACE.take())

    def end(self) -> None:
        """Leave the trial, finished or not: its last epoch is durable, the process as ready as
        before it."""
        recorder, self._recorder = self._recorder, None
        epochs, self._epochs = self._epochs, None
        try:
            if recorder is not None:
                with contextlib.suppress(Superseded):
                    recorder.save()
        finally:
            if epochs is not None:
                with contextlib.suppress(Superseded):
                    epochs.close()  # type: ignore[attr-defined]
                gc.collect()
                give_back()
                torch = sys.modules["torch"]
                if torch.cuda.is_initialized():
                    torch.cuda.empty_cache()

    def pulse(self) -> float:
        """CPU seconds that the working thread has used: it stands still in a rank that hangs."""
        clock = getattr(time, "pthread_getcpuclockid", None)
        if self._thread is None or clock is None:
            return time.process_time()
        return time.clock_gettime(clock(self._thread))

    def stack(self) -> str:
        """Where the working thread is just now."""
        frame = sys._current_frames().get(self._thread or threading.main_thread().ident or 0)
        return "".join(traceback.format_stack(frame)) if frame else "no such thread\n"


def interface_of(address: str) -> str | None:
    """Name of the network interface with this IP address; gloo listens on 127.0.0.1 without it."""
    import psutil

    for name, addresses in psutil.net_if_addrs().items():
        if any(entry.address == address for entry in addresses):
            return name
    return None
