"""How a process computes on its GPU: repeatably or fast, and how it waits for it."""

from __future__ import annotations

import ctypes
import logging
import os

import torch

log = logging.getLogger(__name__)

SCHED_BLOCKING_SYNC, SCHED_MASK = 0x04, 0x07
"""``CU_CTX_SCHED_*`` of CUDA's driver."""


def compute(*, deterministic: bool) -> None:
    """Settle for this process how GPUs compute, before it touches one.

    ``deterministic``: only algorithms that give the same bits again, on the same kind of GPU with
    the same versions: cuDNN's deterministic ones, chosen without timing them, cuBLAS with a fixed
    workspace, and whole float32 where the precision is fp32. An operation that has no such
    algorithm raises. Otherwise cuDNN times its algorithms and takes the fastest (as edm's and
    stylegan3's training loops do), and float32 convolutions are TF32 (a mantissa of 10 bits,
    torch's own default); products of matrices stay whole float32 in both.
    """
    if deterministic:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # read when cuBLAS is first used
    if deterministic != torch.are_deterministic_algorithms_enabled():
        # Imports torch's compiler, .7 s of CPU: not where nothing is to be changed.
        torch.use_deterministic_algorithms(deterministic)
    # Else every `empty` is filled first, which only hides who reads what was never written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.allow_tf32 = not deterministic
    torch.backends.cuda.matmul.allow_tf32 = False


def let_waits_sleep(device: int = 0) -> bool:
    """Have this process sleep, not spin, while it waits for its GPU; whether the driver agreed.

    A thread that spins uses CPU time, so that one that waits for a GPU which hangs looks busy
    (:class:`medaug.sweep.trial.heartbeat.Watch`). Sleeping costs some microseconds a wait, and a
    step has none. Call it before the process touches the GPU.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:  # no driver here
        return False
    state, flags, active = ctypes.c_int(), ctypes.c_uint(), ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(state), device):
        return False
    if driver.cuDevicePrimaryCtxGetState(state, ctypes.byref(flags), ctypes.byref(active)):
        return False
    wanted = flags.value & ~SCHED_MASK | SCHED_BLOCKING_SYNC
    if refused := driver.cuDevicePrimaryCtxSetFlags_v2(state, wanted):
        log.debug("CUDA's driver does not let waits sleep (%d)", refused)
    return not refused


def has_bfloat16(device: torch.device) -> bool:
    """Whether this GPU computes in bfloat16 itself: before compute capability 8.0 (T4, V100) it is
    emulated."""
    return torch.cuda.get_device_capability(device) >= (8, 0)
