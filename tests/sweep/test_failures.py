"""Failure triage: each failed trial carries its class and the next thing to try."""

from __future__ import annotations

import errno
import gzip
import json
import pickle
import sqlite3
import zipfile
import zlib

import numpy as np
import pyarrow as pa
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
        "CUDA error: all CUDA-capable devices are busy or unavailable",
        "CUDA error: too many resources requested for launch",
        "cuda runtime error (59) : device-side assert triggered at /pytorch/aten/src/THC/x.cu:26",
        "miopenStatusInternalError: MIOpen failed",
        "rocBLAS error: Could not initialize Tensile host",
        "NVML_SUCCESS == r INTERNAL ASSERT FAILED at CUDACachingAllocator.cpp:838",
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
        "CUDA error: invalid device function",
        "HIP error: invalid device function",
        "CUDA error: device kernel image is invalid",
        "hipErrorNoBinaryForGpu: Unable to find code object for all current devices!",
        "rocBLAS error: Cannot read TensileLibrary.dat: No such file or directory for GPU arch : "
        "gfx1031",
        "Unexpected error from cudaGetDeviceCount(). Error 803: system has unsupported display "
        "driver / cuda driver combination",
        "CUDA unknown error - this may be due to an incorrectly set up environment, e.g. changing "
        "env variable CUDA_VISIBLE_DEVICES after program start. Setting the available devices to "
        "be zero.",
        "cuDNN version incompatibility: PyTorch was compiled against (9, 1, 0) but found runtime "
        "version (8, 9, 2)",
    ],
    "collective": [
        "NCCL error in: ProcessGroupNCCL.cpp:1970, unhandled cuda error, NCCL version 2.21.5",
        "NCCL error: unhandled system error (run with NCCL_DEBUG=INFO for details)",
        "[Rank 1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=5) ran for 30000 ms",
        "[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.0.0.1]:4711",
        "NCCL communicator was aborted on rank 0. Original reason for failure was: watchdog "
        "timeout",
        "Gloo connectFullMesh failed with [../third_party/gloo/gloo/transport/tcp/pair.cc:144] no "
        "error",
        "Timed out initializing process group in store based barrier on rank: 1, for key: "
        "store_based_barrier_key:1 (world_size=2, worker_count=1, timeout=0:30:00)",
        "Rank 1 successfully reached monitoredBarrier, but received errors while waiting for "
        "send/recv from rank 0",
        "Socket Timeout",
        "[2] is setting up NCCL communicator and retrieving ncclUniqueId from [0] via c10d key-value"
        " store by key '0', but store->get('0') got error: Connection reset by peer",
        "The server socket has failed to listen on any local network address. The server socket "
        "has failed to bind to [::]:29500 (errno: 98 - Address already in use).",
        "NCCL WARN corrupted comm object detected",
    ],
    "open files": [
        "unable to open shared memory object </torch_29919_1396182366> in read-write mode: Too many "
        "open files (24)",
        "unable to open file </storage/x.pt> in read-only mode: Too many open files (24)",
        "received 0 items of ancdata",
        "Too many open files. Communication with the workers is no longer possible. Please increase "
        "the limit using `ulimit -n` in the shell",
    ],
    "processes": ["can't start new thread"],
    "shared memory": [
        "DataLoader worker (pid 123) is killed by signal: Bus error. It is possible that "
        "dataloader's workers are out of shared memory. Please try to raise your shared memory limit.",
        "unable to write to file </torch_4711_12345_0>: No space left on device (28)",
        "unable to resize file </dev/shm/torch_1> to the right size: No space left on device (28)",
    ],
    "storage": [
        "basic_ios::clear: iostream error",
        "[enforce fail at inline_container.cc:595] . PytorchStreamWriter failed writing file data/3: "
        "file write failed",
    ],
    "damaged file": [
        "PytorchStreamReader failed reading zip archive: failed finding central directory",
        "PytorchStreamReader failed locating file data.pkl: file not found",
    ],
    "packages": [
        "Failed to find C compiler. Please specify via CC environment variable.",
    ],
    "error": [
        "mat1 and mat2 shapes cannot be multiplied (16x64 and 32x2)",
        "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and "
        "cpu!",
        "Input type (torch.cuda.FloatTensor) and weight type (torch.FloatTensor) should be the same",
        "Cannot re-initialize CUDA in forked subprocess. To use CUDA with multiprocessing, you must "
        "use the 'spawn' start method",
        "CUDA error: operation failed due to a previous error during capture",
        "Default process group has not been initialized, please make sure to call "
        "init_process_group.",
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


def a_library_s(
    name: str, text: str, base: type[Exception] = Exception, of: str = "x"
) -> Exception:
    """An exception of a library that is not imported here, or not installed."""
    return type(name, (base,), {"__module__": of})(text)


NFS_TIMEOUT = OSError(errno.ETIMEDOUT, "Connection timed out", "/nfs/runs/x")
OTHERS: list[tuple[str, Exception]] = [
    ("storage", NFS_TIMEOUT),
    ("collective", OSError(errno.ETIMEDOUT, "Connection timed out")),
    ("collective", ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")),
    ("collective", OSError(errno.EADDRINUSE, "Address already in use")),
    ("collective", OSError(errno.EHOSTUNREACH, "No route to host")),
    ("processes", OSError(errno.EAGAIN, "Resource temporarily unavailable")),
    ("storage", OSError(errno.EDQUOT, "Disk quota exceeded", "/home/x")),
    ("storage", OSError(errno.EIO, "Input/output error", "/data/x")),
    ("storage", OSError(errno.EROFS, "Read-only file system", "/data/x")),
    ("storage", OSError(errno.ENOTCONN, "Transport endpoint is not connected", "/fuse/x")),
    (
        "packages",
        OSError("libcudnn.so.9: cannot open shared object file: No such file or directory"),
    ),
    ("packages", ImportError("/lib/libstdc++.so.6: version `GLIBCXX_3.4.29' not found")),
    (
        "damaged file",
        a_library_s("SafetensorError", "Error while deserializing header: HeaderTooLarge"),
    ),
    ("damaged file", a_library_s("SafetensorError", "MetadataIncompleteBuffer")),
    (
        "storage",
        a_library_s("SafetensorError", "I/O error: No space left on device (os error 28)"),
    ),
    ("damaged file", pickle.UnpicklingError("invalid load key, 'v'.")),
    (
        "damaged file",
        pickle.UnpicklingError(
            "Weights only load failed. WeightsUnpickler error: Unsupported global: GLOBAL os.system"
        ),
    ),
    ("damaged file", EOFError("Ran out of input")),
    ("damaged file", zlib.error("Error -3 while decompressing data: incorrect header check")),
    ("damaged file", gzip.BadGzipFile("Not a gzipped file (b'he')")),
    ("damaged file", zipfile.BadZipFile("File is not a zip file")),
    ("damaged file", json.JSONDecodeError("Expecting value", "", 0)),
    ("damaged file", pa.ArrowInvalid("Not an Arrow file")),
    ("damaged file", pa.ArrowInvalid("File is too small: 0")),
    (
        "damaged file",
        pa.ArrowInvalid("Expected to read 1330795073 metadata bytes, but only read 123"),
    ),
    ("damaged file", OSError("ZSTD decompression failed: Corrupted block detected")),
    ("damaged file", OSError("image file is truncated (5 bytes not processed)")),
    ("out of memory", pa.ArrowMemoryError("malloc of size 1073741824 failed")),
    ("out of memory", MemoryError("Unable to allocate 7.45 GiB for an array with shape (1000,)")),
    ("out of memory", RuntimeError("std::bad_alloc")),
    ("out of memory", RuntimeError("MPS backend out of memory (MPS allocated: 17.3 GB)")),
    ("storage", OSError("AWS Error ACCESS_DENIED during HeadObject operation: No response body.")),
    (
        "storage",
        a_library_s(
            "ClientError", "An error occurred (SlowDown) when calling PutObject", of="botocore"
        ),
    ),
    (
        "storage",
        a_library_s("NoCredentialsError", "Unable to locate credentials", of="botocore.exceptions"),
    ),
    ("storage", a_library_s("ReadTimeout", "Read timed out. (read timeout=10)", of="requests")),
    ("storage", sqlite3.OperationalError("database or disk is full")),
    ("shared memory", a_library_s("ObjectStoreFullError", "Failed to put object x: it is full")),
    ("storage", a_library_s("OutOfDiskError", "Local disk is full", of="ray.exceptions")),
    ("packages", a_library_s("RuntimeEnvSetupError", "Failed to set up runtime environment")),
    (
        "out of memory",
        a_library_s("OutOfMemoryError", "Task was killed, node running low on memory"),
    ),
    ("collective", dist.DistNetworkError("The client socket has timed out after 60000ms")),
    (
        "collective",
        dist.DistStoreError("Timed out after 61 seconds waiting for clients. 1/2 joined"),
    ),
    ("no GPU", a_library_s("DeferredCudaCallError", "CUDA call failed lazily at initialization")),
    ("no GPU", AssertionError("Invalid device id")),
    ("error", np.linalg.LinAlgError("SVD did not converge")),
    ("error", ValueError("Input X contains NaN.")),
    ("error", TypeError("can't convert cuda:0 device type tensor to numpy.")),
]


@pytest.mark.parametrize(("kind", "error"), OTHERS, ids=lambda each: str(each)[:40])
def test_what_files_processes_and_libraries_say(kind: str, error: Exception) -> None:
    assert triage(error).kind == kind
    assert sum(map(len, GPU_FAULTS.values())) + len(OTHERS) >= 110


def test_only_what_the_user_can_correct_is_called_his() -> None:
    texts = [RuntimeError(text) for texts in GPU_FAULTS.values() for text in texts]
    for error in [*texts, *(error for _, error in OTHERS)]:
        assert triage(error).kind != "configuration"
