"""What the nodes of a cluster are like: one question to each, answered by a Ray task there."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import platform
import resource
import secrets
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from medaug.errors import EnvironmentFault, lines_of
from medaug.storage import storage_at
from medaug.storage.files import private_folder
from medaug.sweep.cluster.start import Cluster

VERSIONS = ("medaug", "torch", "ray", "mlflow")
PROBE_BYTES = 1 << 16


@dataclass(frozen=True)
class Answer:
    """What one node says of itself."""

    versions: dict[str, str]
    gpus: int
    """That torch can use there."""
    nccl: bool
    seen: str | None
    """SHA-256 of the driver's file in the storage as this node reads it; None: it is not there."""
    wrote: str | None
    """SHA-256 of what this node wrote there; None: it could not."""
    storage_error: str
    disk_bytes: int
    """Free at Ray's temporary folder."""
    shm_bytes: int
    open_files: int
    umask: int
    clock_s: float
    """Its time of day, seconds since 1970."""


@dataclass(frozen=True)
class Node:
    """A node, its answer, and how its storage compares with the driver's."""

    address: str
    resources: dict[str, float]
    answer: Answer | None
    error: str
    """Why there is no answer."""
    skew_s: float
    """Its clock minus ours, at the middle of the question."""
    took_s: float
    same_file: bool
    """It reads the bytes that we wrote, and we those that it wrote."""


def ask_nodes(storage: Path, address: str | None, timeout_s: float) -> list[Node]:
    """Ask every node that is alive, at most ``timeout_s`` each.

    Raises:
        EnvironmentFault: there is no such cluster, or it does not let us in.
    """
    cluster = Cluster(address)
    try:
        cluster.start()
        import ray

        alive = [node for node in ray.nodes() if node["Alive"]]
        with _probe_folder(storage.absolute()) as folder:
            return [_ask(node, folder, timeout_s) for node in alive]
    finally:
        cluster.stop()


def describe(folder: Path, name: str) -> Answer:
    """What :class:`Answer` wants to know, of the node where this runs."""
    import torch

    seen = wrote = None
    error = ""
    try:
        seen = _sha256(_read(folder / "driver"))
        body = secrets.token_bytes(PROBE_BYTES)
        storage_at(folder).put(folder / name, body)
        wrote = _sha256(body)
    except OSError as fault:
        error = fault.strerror or str(fault)
    shm = os.statvfs("/dev/shm") if os.path.isdir("/dev/shm") else None
    umask = os.umask(0o077)
    os.umask(umask)
    versions = {"python": platform.python_version()}
    for package in VERSIONS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return Answer(
        versions=versions,
        gpus=torch.cuda.device_count(),
        nccl=torch.distributed.is_available() and torch.distributed.is_nccl_available(),
        seen=seen,
        wrote=wrote,
        storage_error=error,
        disk_bytes=shutil.disk_usage(os.environ.get("TMPDIR", "/tmp")).free,
        shm_bytes=shm.f_bavail * shm.f_frsize if shm else 0,
        open_files=1 << 30 if limit == resource.RLIM_INFINITY else limit,
        umask=umask,
        clock_s=time.time(),
    )


def _ask(node: dict[str, Any], folder: Path, timeout_s: float) -> Node:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    name = node["NodeID"][:12]
    here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    task: Any = ray.remote(describe)
    began, wall = time.monotonic(), time.time()
    answer, error = None, ""
    try:
        options = {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": here}
        answer = ray.get(task.options(**options).remote(folder, name), timeout=timeout_s)
    except ray.exceptions.GetTimeoutError:
        error = f"no answer within {timeout_s:.0f} s"
    except ray.exceptions.RayError as fault:
        error = lines_of(fault)[-1][:200]
    took_s = time.monotonic() - began
    # Starting the worker comes first and is most of the time: the clock was read near the end.
    skew_s = answer.clock_s - (wall + took_s) if answer else 0.0
    return Node(
        address=node["NodeManagerAddress"],
        resources={k: v for k, v in node["Resources"].items() if k in ("CPU", "GPU", "memory")},
        answer=answer,
        error=error,
        skew_s=skew_s,
        took_s=took_s,
        same_file=answer is not None and _same(folder, name, answer),
    )


def _same(folder: Path, name: str, answer: Answer) -> bool:
    try:
        theirs = _sha256(_read(folder / name))
    except OSError:
        return False
    return answer.seen == _sha256(_read(folder / "driver")) and answer.wrote == theirs


def _read(file: Path) -> bytes:
    """As the storage has it, whatever this node has."""
    if (content := storage_at(file).read(file)) is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    return content


@contextlib.contextmanager
def _probe_folder(storage: Path) -> Iterator[Path]:
    """A folder in the storage with a file ``driver`` of random bytes, gone at the end."""
    made = not storage.exists()
    folder = storage / f".doctor-{uuid.uuid4().hex}"
    try:
        private_folder(folder)
        storage_at(folder).put(folder / "driver", secrets.token_bytes(PROBE_BYTES))
    except EnvironmentFault:
        raise
    except OSError as fault:
        what = f"storage {storage}: {fault.strerror}; make it writable or choose another storage"
        raise EnvironmentFault(what) from None
    try:
        yield folder
    finally:
        storage_at(folder).remove_folder(folder, first="driver")
        shutil.rmtree(folder, ignore_errors=True)
        if made:
            with contextlib.suppress(OSError):
                storage.rmdir()


def _sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
