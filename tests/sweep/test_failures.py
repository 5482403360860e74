"""Failure triage: each failed trial carries its class and the next thing to try."""

from __future__ import annotations

import errno

import numpy as np
import pytest
import torch
import torch.distributed as dist

from medaug.errors import EnvironmentFault, IntegrityError, UserError
from medaug.models.unet import tap_shape
from medaug.sweep.trial.failures import Failure, root_cause, triage


@pytest.mark.parametrize(
    ("error", "kind", "another_try"),
    [
        (UserError("fold: 7 is not one of 0..4"), "configuration", False),
        (ValueError("Found array with 0 sample(s)"), "error", False),  # of a library
        (FileNotFoundError(errno.ENOENT, "No such file", "x"), "storage", False),
        (PermissionError(errno.EACCES, "Permission denied", "x"), "storage", False),
        (OSError(errno.EMFILE, "Too many open files", "x"), "open files", False),
        (OSError(errno.ENFILE, "Too many open files in system"), "open files", False),
        (OSError(errno.ENOSPC, "No space left on device", "/dev/shm/x"), "shared memory", False),
        (OSError(errno.ENOSPC, "No space left on device", "/storage/x"), "storage", False),
        (
            RuntimeError(
                "unable to write to file </torch_12_3_4>: No space left; torch_shm_manager"
            ),
            "shared memory",
            False,
        ),
        (IntegrityError("shard 3: hash"), "damaged file", False),
        (ModuleNotFoundError("No module named 'my_arms'"), "packages", False),
        (ImportError("cannot import name 'Draw' from 'my_arms'"), "packages", False),
        (EnvironmentFault("need 3 MB, have 1 MB at /x"), "storage", False),
        (OSError(errno.ESTALE, "Stale file handle"), "storage", False),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "out of memory", True),
        (MemoryError(), "out of memory", True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to"), "out of memory", True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
            "out of memory",
            True,
        ),
        (dist.DistBackendError("NCCL watchdog timeout"), "collective", True),
        (RuntimeError("[../gloo/pair.cc:545] Connection closed by peer [::1]"), "collective", True),
        (RuntimeError("[gloo/unbound_buffer.cc] Timed out waiting 5000ms"), "collective", True),
        (RuntimeError("CUDA error: an illegal memory access"), "device", True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), "error", False),
        (KeyError("x"), "error", False),
    ],
)
def test_classes(error: Exception, kind: str, another_try: bool) -> None:
    failure = triage(error)
    assert failure.kind == kind
    assert failure.another_try is another_try
    line = str(failure)
    assert line.startswith(f"{kind}: ")
    assert "\n" not in line
    assert ";" in line


def test_a_value_error_of_ours_is_the_user_s_and_one_of_a_library_is_not() -> None:
    with pytest.raises(ValueError, match="image_size") as ours:
        tap_shape("conv5", 4, 100)
    assert triage(ours.value).kind == "configuration"
    with pytest.raises(ValueError, match="could not convert") as theirs:
        np.array(["x"]).astype(float)
    assert triage(theirs.value).kind == "error"


def test_the_cause_is_not_what_its_peers_saw() -> None:
    peer = Failure("collective", "Connection closed by peer")
    assert root_cause([peer, Failure("rank died", "gone")]).kind == "rank died"
    assert root_cause([peer, Failure("configuration", "no")]).kind == "configuration"
    assert root_cause([peer, Failure("rank died", "x"), Failure("out of memory", "y")]).what == "y"


def test_details_keep_the_traceback() -> None:
    try:
        raise KeyError("where")
    except KeyError as error:
        details = triage(error).as_dict()
    assert "test_details_keep_the_traceback" in details["details"]
    assert details["error"].startswith("error: KeyError: 'where'; ")


GPU_FAULTS = {
    "out of memory": [
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 15.77 GiB",
        "HIP out of memory. Tried to allocate 20.00 MiB",
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "CUFFT_ALLOC_FAILED",
        "cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`",
        "GET was unable to find an engine to execute this computation",
        "FIND was unable to find an engine to execute this computation",
        "Unable to find an engine to execute this computation",
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8589934592 bytes",
        "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: not enough memory",
        "unable to mmap 1024 bytes from file </x>: Cannot allocate memory (12)",
    ],
    "device": [
        "CUDA error: an illegal memory access was encountered",
        "CUDA error: device-side assert triggered",
        "CUDA error: unspecified launch failure",
        "CUDA error: misaligned address",
        "CUDA error: uncorrectable ECC error encountered",
        "CUDA error: the launch timed out and was terminated",
        "CUDA error: an illegal instruction was encountered",
        "CUDA error: hardware stack error",
        "CUDA error: unknown error",
        "CUDA error: invalid configuration argument",
        "CUDA error: initialization error",
        "CUDA error: context is destroyed",
        "Triton Error [CUDA]: an illegal memory access was encountered",
        "an illegal memory access was encountered",
        "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR",
        "cuDNN error: CUDNN_STATUS_MAPPING_ERROR",
        "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "cusolver error: CUSOLVER_STATUS_INTERNAL_ERROR, when calling `cusolverDnSsyevd`",
        "cuFFT error: CUFFT_EXEC_FAILED",
        "cuSPARSE error: CUSPARSE_STATUS_EXECUTION_FAILED",
        "HIP error: an illegal memory access was encountered",
        "HIP error: invalid device function",
        "miopenStatusInternalError: MIOpen failed",
        "rocBLAS error: Could not initialize Tensile host",
        "Can't initialize NVML",
        "GPU is lost: Xid 79",
    ],
    "no GPU": [
        "CUDA error: no kernel image is available for execution on the device",
        "No CUDA GPUs are available",
        "Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU",
        "The NVIDIA driver on your system is too old (found version 11040)",
        "Torch not compiled with CUDA enabled",
        "CUDA error: invalid device ordinal",
        "CUDA error: no CUDA-capable device is detected",
        "CUDA error: CUDA driver version is insufficient for CUDA runtime version",
        "CUDA error: the provided PTX was compiled with an unsupported toolchain.",
        "CUDA error: forward compatibility was attempted on non supported HW",
        "PyTorch is not linked with support for cuda devices",
        "No HIP GPUs are available",
        "CUDA error: system not yet initialized",
    ],
    "collective": [
        "NCCL error in: ProcessGroupNCCL.cpp:1970, unhandled cuda error, NCCL version 2.21.5",
        "NCCL error: unhandled system error (run with NCCL_DEBUG=INFO for details)",
        "[Rank 1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=5) ran for 30000 ms",
        "[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.0.0.1]:4711",
    ],
    "error": [
        "mat1 and mat2 shapes cannot be multiplied (16x64 and 32x2)",
        "Expected all tensors to be on the same device, but found at least two devices, cpu and gpu!",
        "a replicate that shares its passes failed in the middle of an epoch",
    ],
}


@pytest.mark.parametrize(
    ("kind", "text"), [(kind, text) for kind, texts in GPU_FAULTS.items() for text in texts]
)
def test_what_torch_and_its_libraries_say_of_a_gpu(kind: str, text: str) -> None:
    assert triage(RuntimeError(text)).kind == kind
    assert sum(map(len, GPU_FAULTS.values())) >= 50


def test_a_gpu_that_torch_cannot_use_is_not_tried_again() -> None:
    failure = triage(AssertionError("Torch not compiled with CUDA enabled"))
    assert failure.kind == "no GPU"
    assert not failure.another_try
    assert "medaug doctor" in str(failure)


def test_a_process_whose_gpu_failed_is_not_used_again() -> None:
    gone = triage(RuntimeError("CUDA error: no kernel image is available for execution"))
    assert gone.of_the_gpu
    assert triage(RuntimeError("CUDA error: an illegal memory access was encountered")).of_the_gpu
    assert not triage(ValueError("epochs: 0")).of_the_gpu
