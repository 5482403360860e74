"""The Ray cluster that a sweep runs on: an embedded one of its own, or one at an address."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from medaug.errors import EnvironmentFault, UserError, lines_of
from medaug.spec import ResourceSpec
from medaug.storage.temporary import temporary_folder
from medaug.sweep.cluster.auth import token_for
from medaug.sweep.cluster.environment import LOOPBACK, environment, for_ray
from medaug.sweep.cluster.gpus import count, settled, torch_sees_gpus

log = logging.getLogger(__name__)

OBJECT_STORE_BYTES = 100 << 20
"""Ray's shared memory carries a few small messages here: data travel through mapped files."""
CONNECT_TIMEOUT_S = 5.0

START_S = 300.0
"""How long Ray may take to start; it gives up by itself after 30 s, on a busy machine too soon."""
ESSENTIAL = ("gcs_server", "raylet")
"""Processes of a cluster without which it is lost."""
SLOW_S = 15.0
"""A start that fails sooner fails for another reason than that the machine is slow: Ray waits for
20 s for the first of its servers."""


class Cluster:
    """Ray for this process, started when first needed; :meth:`stop` ends only what was started.

    ``address`` is ``HOST:PORT`` of a running cluster, or None for one of this machine alone with
    ``cpus`` CPUs (None: all). A process that has Ray already (a notebook, a test) keeps it.
    """

    def __init__(self, address: str | None = None, cpus: int | None = None) -> None:
        if address:
            check_address(address)
        self._address = address
        self._cpus = cpus
        self._up = self._ours = False
        self._seen = time.monotonic()
        self._family: list[psutil.Process] = []
        """Of an embedded cluster: the processes without which it is lost."""
        self._others: list[psutil.Process] = []
        """The other processes that it started with."""
        self._around = contextlib.ExitStack()
        """What is to be put back, and removed, at the end."""

    @property
    def embedded(self) -> bool:
        """Whether it is of this machine alone, for this process."""
        return self._address is None

    def start(self) -> None:
        """Start or join.

        Raises:
            EnvironmentFault: there is no such cluster, it does not let us in, or its workers have
                no medaug.
        """
        if self._up:
            return
        with contextlib.ExitStack() as around:
            if self._address:
                if not _listening(self._address):
                    raise EnvironmentFault(
                        f"cluster {self._address}: nothing listens there; is its head up?"
                    )
                around.enter_context(token_for(self._address))  # before Ray is imported
            alone = self._address is None or _only_on_loopback(self._address)
            alone = alone and not _is_there()
            around.enter_context(for_ray(alone=alone, joins=self._address is not None))
            import ray

            if not ray.is_initialized():
                if self._address:
                    self._join(self._address, around)
                else:
                    self._embed(around)
                self._ours = True
            self._around.push(around.pop_all())
        self._up = True
        self._seen = time.monotonic()

    def settle(self, resources: ResourceSpec) -> tuple[ResourceSpec, str]:
        """``resources`` with GPUs as this cluster has them, and a line that says which."""
        import ray

        nodes = ray.nodes()
        gpus = count(nodes)
        ask = gpus > 0 and resources.gpus_per_rank == "auto"
        return settled(resources, gpus, usable=not ask or torch_sees_gpus(nodes))

    def require(self, ranks: int, resources: ResourceSpec) -> None:
        """Check that one trial of ``ranks`` ranks fits into the cluster when it is empty.

        Raises EnvironmentFault with what it wants and what there is; Tune would wait for ever.
        """
        import ray

        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        room = capacity(nodes, resources)
        if room < ranks:
            raise EnvironmentFault(
                f"resources: a trial wants {ranks} ranks of {resources.cpus_per_rank:g} CPU and "
                f"{resources.gpus:g} GPU ({resources.strategy}), but the cluster has room "
                f"for {room} ({_total(nodes, 'CPU'):g} CPU and {_total(nodes, 'GPU'):g} GPU on "
                f"{len(nodes)} node{'s' * (len(nodes) != 1)}); lower resources.ranks, or use a "
                "larger cluster (--address), or wait for it to grow (--wait)"
            )

    def slots(self, ranks: int, resources: ResourceSpec) -> int:
        """How many trials of ``ranks`` ranks run at once while nobody else uses the cluster."""
        import ray

        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        slots = max(1, capacity(nodes, resources) // ranks)
        return min(slots, resources.max_concurrent or slots)

    def memory_bytes(self) -> list[int]:
        """What Ray lets the workers of each node use."""
        import ray

        return [int(node["Resources"].get("memory", 0)) for node in ray.nodes() if node["Alive"]]

    def silence_s(self) -> float:
        """For how long the head has not been there. Call it every second or so."""
        if self._head_is_there():
            self._seen = time.monotonic()
        return time.monotonic() - self._seen

    def stop(self) -> None:
        """End or leave the cluster, if it was started or joined here."""
        if self._ours:
            import ray

            ours = [*self._family, *self._others]
            processes = [*ours, *_descendants(ours)]
            if not self._head_is_there():  # they would wait for it, and the shutdown for them
                _kill(processes)
            ray.shutdown()
            _kill(processes)
            self._ours = False
        self._around.close()
        self._up = False

    def _head_is_there(self) -> bool:
        import ray

        if not all(map(_runs, self._family)):
            return False
        return ray.is_initialized() and _listening(ray.get_runtime_context().gcs_address)

    def _embed(self, around: contextlib.ExitStack) -> None:
        """Start Ray on this machine. As long as it is slow, and not broken, it is tried again."""
        _protect_token()
        deadline = time.monotonic() + START_S
        while True:
            began = time.monotonic()
            before = set(psutil.Process().children())
            with contextlib.ExitStack() as attempt:
                # Ray opens its own folder to everybody (0777): the one around it is closed.
                private = attempt.enter_context(temporary_folder("medaug-", _short_folder()))
                try:
                    self._start_here(str(private / "r"), attempt)
                except Exception as error:  # a bare one of Ray's own
                    left = set(psutil.Process().children()) - before
                    _kill([*left, *_descendants(left)])
                    now = time.monotonic()
                    if now - began < SLOW_S or now > deadline:
                        raise _no_start(error, now - began) from None
                    log.warning("Ray is slow to start on this busy machine; trying again")
                    continue
                around.push(attempt.pop_all())
            started = set(psutil.Process().children()) - before
            self._family = [child for child in started if _name(child) in ESSENTIAL]
            self._others = [child for child in started if child not in self._family]
            return

    def _start_here(self, folder: str, around: contextlib.ExitStack) -> None:
        # What this process can import, the workers of its own cluster can: they inherit PYTHONPATH.
        ours = [path for path in sys.path if path and not path.startswith(sys.base_prefix)]
        here = _started(
            address="local",  # not the one that RAY_ADDRESS may name
            num_cpus=self._cpus,
            _node_ip_address=LOOPBACK,  # stays when a laptop changes networks
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            _temp_dir=folder,
        )
        with environment({"PYTHONPATH": os.pathsep.join(ours)}):
            around.enter_context(here)

    def _join(self, address: str, around: contextlib.ExitStack) -> None:
        import ray

        try:
            around.enter_context(_started(address=address))
        except (ConnectionError, RuntimeError, ray.exceptions.RayError) as error:
            raise EnvironmentFault(
                f"cluster {address}: {lines_of(error)[0]}; does RAY_AUTH_TOKEN_PATH name its "
                f"token, with RAY_AUTH_MODE=token, and has it Ray {ray.__version__}?"
            ) from None
        _check_workers(address)


@contextlib.contextmanager
def _started(**keys: Any) -> Iterator[None]:
    """``ray.init(**keys)`` in a thread, without which that Ray is of no use: it ends with this.

    In the main thread Ray would set a handler of SIGTERM that raises wherever the process is:
    within a lock that is then never released, or where nobody hears it.
    """
    import ray

    up: Future[None] = Future()
    over = threading.Event()

    def start() -> None:
        try:
            ray.init(log_to_driver=False, configure_logging=False, **keys)
        except BaseException as error:
            up.set_exception(error)
        else:
            up.set_result(None)
            over.wait()

    threading.Thread(target=start, name="medaug-ray", daemon=True).start()
    try:
        up.result()
        yield
    finally:
        over.set()


def check_address(address: str) -> None:
    """Make sure that ``address`` may be that of a cluster's head.

    Raises:
        UserError: it cannot; says what to write.
    """
    host, colon, port = address.rpartition(":")
    if "://" in address or not host or not colon:
        job = "; http:// is for `medaug submit`" if address.startswith("http") else ""
        raise UserError(f"address '{address}': write HOST:PORT of the cluster's head{job}")
    if not (port.isdecimal() and 0 < int(port) < 65536):
        raise UserError(
            f"address '{address}': its port is no number from 1 to 65535; write HOST:PORT"
        )


def _no_start(error: Exception, after_s: float) -> EnvironmentFault:
    return EnvironmentFault(
        f"Ray did not start ({after_s:.0f} s): {lines_of(error)[0][:200]}; this machine is too "
        "busy, or its temporary folder is slow or full; try again, or give a running cluster with "
        "--address"
    )


def capacity(nodes: Iterable[Mapping[str, float]], resources: ResourceSpec) -> int:
    """How many ranks of one trial fit on ``nodes`` (their total resources) under its strategy."""
    rank = {"CPU": resources.cpus_per_rank, "GPU": resources.gpus}
    wanted = {name: amount for name, amount in rank.items() if amount}
    room = [
        int(min(node.get(name, 0.0) / amount + 1e-9 for name, amount in wanted.items()))
        for node in nodes
    ]
    if resources.strategy == "STRICT_PACK":
        return max(room, default=0)
    if resources.strategy == "STRICT_SPREAD":
        return sum(n > 0 for n in room)
    return sum(room)


def medaug_version() -> str:
    """Version of medaug where this is called: on the cluster's workers."""
    return metadata.version("medaug")


def _check_workers(address: str) -> None:
    import ray

    try:
        theirs = ray.get(ray.remote(num_cpus=0)(medaug_version).remote(), timeout=60)
    except ray.exceptions.RayError as error:
        ray.shutdown()
        what = lines_of(error)[-1]
        raise EnvironmentFault(
            f"cluster {address}: its workers cannot load medaug ({what}); install medaug "
            f"{medaug_version()} on its nodes"
        ) from None
    if theirs != medaug_version():
        log.warning("cluster %s has medaug %s, this is %s", address, theirs, medaug_version())


def _protect_token() -> None:
    """Make Ray's token file for this user before Ray does, readable by nobody else."""
    if {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ):
        return
    path = Path.home() / ".ray" / "auth_token"
    with contextlib.suppress(OSError):  # Ray says what is wrong with it
        path.parent.mkdir(mode=0o700, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            path.chmod(0o600)
        else:
            with open(descriptor, "w") as file:
                file.write(secrets.token_hex(32))


def _descendants(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    found = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            found += process.children(recursive=True)
    return found


def _kill(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _short_folder() -> str:
    """A Unix socket's path has at most 107 bytes, and Ray's own part takes up to 70 of them."""
    folder = tempfile.gettempdir()
    return folder if len(os.fsencode(folder)) <= 20 else "/tmp"


def _is_there() -> bool:
    """Whether this process has Ray already."""
    return "ray" in sys.modules and sys.modules["ray"].is_initialized()


def _only_on_loopback(address: str) -> bool:
    """Whether what listens there is an embedded cluster of another process of this machine.

    One that others may join listens on all interfaces, and so on 127.0.0.2, too.
    """
    host, _, port = address.rpartition(":")
    return host == LOOPBACK and not _listening(f"127.0.0.2:{port}")


def _listening(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def _total(nodes: Iterable[Mapping[str, Any]], name: str) -> float:
    return sum(node.get(name, 0.0) for node in nodes)
