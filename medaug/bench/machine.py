"""The hardware and the versions that figures belong to."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

PACKAGES = ("medaug", "torch", "numpy", "pyarrow", "pydantic", "xxhash", "blake3", "ray")
PEERS = (
    "lmdb", "h5py", "zarr", "safetensors", "datasets", "litdata", "mosaicml-streaming",
    "webdataset",
)  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """Where a benchmark ran."""

    cpu: str
    capability: str
    """What torch uses of the processor: AVX2, AVX512, …"""
    cores: int
    """That this process may use."""
    ram_gib: float
    gpus: tuple[str, ...]
    threads: int
    """Threads of one torch operation."""
    load: float
    """Processes that wanted to run, averaged over the minute before: more than ``cores`` means
    that others were at work, and that seconds are not to be trusted."""
    system: str
    versions: Mapping[str, str]

    @staticmethod
    def here() -> Machine:
        import torch

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        names = [torch.cuda.get_device_name(i) for i in range(count)]
        return Machine(
            cpu=_cpu(),
            capability=torch.backends.cpu.get_cpu_capability(),
            cores=cores(),
            ram_gib=round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
            gpus=tuple(names),
            threads=torch.get_num_threads(),
            load=round(os.getloadavg()[0], 2),
            system=f"{platform.system()} {platform.release()}",
            versions={"python": platform.python_version(), **versions(PACKAGES + PEERS)},
        )

    @property
    def line(self) -> str:
        """All that a table's caption needs."""
        gpus = f", {len(self.gpus)} x {self.gpus[0]}" if self.gpus else ", no GPU"
        torch = self.versions.get("torch", "?")
        return (
            f"{self.cpu} ({self.capability}), {self.cores} cores ({self.threads} torch threads), "
            f"{self.ram_gib:g} GiB{gpus}; torch {torch}, {self.system}; "
            f"load before: {self.load:g}"
        )


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Version of each of ``packages`` that is installed."""
    found = {}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def cores() -> int:
    """That this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
