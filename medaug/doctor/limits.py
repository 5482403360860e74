"""Bounds below which things go wrong, judged alike on this machine and on the cluster's nodes."""

from __future__ import annotations

from medaug.doctor.finding import Finding, failed, passed, warned
from medaug.units import size

FEWEST_FILES, ENOUGH_FILES = 1024, 4096
"""Open at once: a process of Ray keeps a socket per worker, a store a file per shard."""
LEAST_SHM, ENOUGH_SHM = 128 << 20, 1 << 30
"""Ray's object store lives there (100 MiB of it are ours), and NCCL's buffers do. Docker gives a
container 64 MB."""
LEAST_DISK, ENOUGH_DISK = 1 << 30, 20 << 30
LARGEST_SKEW_S, HARMLESS_SKEW_S = 60.0, 2.0
"""Clocks decide nothing in medaug but what people read; certificates and tokens care sooner."""


def open_files(check: str, limit: int) -> Finding:
    what = f"{limit} at once"
    fix = "ulimit -n 65536 before Ray or medaug starts (LimitNOFILE= in a systemd unit)"
    if limit < FEWEST_FILES:
        return failed(check, what, fix)
    return warned(check, what, fix) if limit < ENOUGH_FILES else passed(check, what)


def shared_memory(check: str, n_bytes: int) -> Finding:
    what = f"/dev/shm holds {size(n_bytes)}"
    fix = "docker run --shm-size=2g; Kubernetes: an emptyDir with medium: Memory at /dev/shm"
    if n_bytes < LEAST_SHM:
        return failed(check, what, fix)
    return warned(check, what, fix) if n_bytes < ENOUGH_SHM else passed(check, what)


def free_disk(check: str, where: str, n_bytes: int) -> Finding:
    what = f"{size(n_bytes)} free {where}"
    fix = "free some, or choose another place; `medaug plan` says how much a study needs"
    if n_bytes < LEAST_DISK:
        return failed(check, what, fix)
    return warned(check, what, fix) if n_bytes < ENOUGH_DISK else passed(check, what)


def clock_skew(check: str, skew_s: float, uncertain_s: float) -> Finding:
    """``uncertain_s``: how long the question took; a difference within it is none."""
    beyond_s = max(0.0, abs(skew_s) - uncertain_s)
    what = f"{skew_s:+.1f} s from here (known to {uncertain_s:.1f} s)"
    fix = "run chrony or ntpd on every node"
    if beyond_s > LARGEST_SKEW_S:
        return failed(check, what, fix)
    return warned(check, what, fix) if beyond_s > HARMLESS_SKEW_S else passed(check, what)
