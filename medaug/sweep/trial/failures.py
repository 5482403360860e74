"""Failure triage: what kind of failure it is, whether another try can help, what to do next."""

from __future__ import annotations

import errno
import re
import traceback
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from medaug.errors import EnvironmentFault, IntegrityError, UserError, lines_of
from medaug.sweep.trial.fence import Superseded

Kind = Literal[
    "configuration", "damaged file", "storage", "out of memory", "collective", "device",
    "no GPU", "rank died", "hang", "lost node", "superseded", "open files", "shared memory",
    "processes", "packages", "error",
]  # fmt: skip

_ADVICE: dict[Kind, str] = {
    "configuration": "correct it and resume",
    "damaged file": "delete what is named (it is made again) and resume",
    "storage": "check space and permissions of the storage and resume",
    "out of memory": "lower the batch size, or run fewer trials at once (resources.max_concurrent)",
    "collective": "another rank was lost or late: see its error, or raise resources.hang_timeout_s",
    "device": "look for the GPU's fault in the kernel log (dmesg, Xid) and resume on another",
    "no GPU": "torch, driver and GPU do not fit (`medaug doctor`); gpus_per_rank 0 runs on CPUs",
    "rank died": "if the kernel's log says out of memory, lower the batch size; else resume",
    "hang": "failure.json has the stacks of all ranks; raise resources.hang_timeout_s if slow",
    "lost node": "resume when the cluster has its nodes back",
    "superseded": "nothing to do: that one goes on with it",
    "open files": "ulimit -n 65536 (LimitNOFILE= in a systemd unit) and resume",
    "shared memory": "make /dev/shm larger (docker run --shm-size=2g) and resume",
    "processes": "ulimit -u 65536 (--pids-limit of a container) and resume",
    "packages": "install the same packages on every node, medaug included, and resume",
    "error": "failure.json has the traceback; a bug, please report it",
}
assert set(_ADVICE) == set(get_args(Kind))

_ANOTHER_TRY: frozenset[Kind] = frozenset(
    {"out of memory", "collective", "device", "rank died", "hang", "lost node"}
)
_USUAL_CAUSE_FIRST: tuple[Kind, ...] = (
    "superseded", "out of memory", "open files", "processes", "shared memory", "no GPU", "device",
    "configuration", "damaged file", "storage", "packages", "error", "lost node", "rank died",
    "hang", "collective",
)  # fmt: skip

_COLLECTIVE = re.compile(
    r"gloo|nccl|closed by peer|reset by peer|broken pipe|monitoredBarrier|barrier on rank"
    r"|socket timeout|server socket has failed|store->get|clients joined"
    r"|initializing process group",
    re.IGNORECASE,
)
_MEMORY = re.compile(
    r"can't allocate memory|out of memory|not enough memory|cannot allocate memory"
    # cuDNN says these where it finds no memory for what a kernel wants beside its arguments.
    r"|ALLOC_FAILED|unable to find an engine|find was unable to find|\bstd::bad_alloc",
    re.IGNORECASE,
)
_OPEN_FILES = re.compile(r"too many open files|received 0 items of ancdata", re.IGNORECASE)
_PROCESSES = re.compile(
    r"can't start new thread|pthread_create|resource temporarily unavailable", re.I
)
_SHARED_MEMORY = re.compile(
    r"/dev/shm|shared memory (object|file|limit)|torch_shm|shm_open|</torch_\d|object store .*full"
)
_NO_GPU = re.compile(
    # A build or a driver that cannot use this GPU: another try on it ends in the same way.
    r"no kernel image|no CUDA GPUs are available|not compiled with CUDA|NVIDIA driver|CUDA driver"
    r"|no CUDA-capable device|invalid device ordinal|PTX|not linked with support for cuda"
    r"|No HIP GPUs|forward compatibility was attempted|system not yet initialized"
    r"|kernel image is invalid|invalid device function|NoBinaryForGpu|for GPU arch"
    r"|unsupported display driver|cuDNN version incompatibility|available devices to be zero"
    r"|CUDA call failed lazily|invalid device id",
    re.IGNORECASE,
)
_OF_CODE = re.compile(
    # These name CUDA, and are what a program did, not its GPU.
    r"on the same device|should be the same|re-initialize CUDA in forked|during capture"
    r"|stream is capturing",
)
_DAMAGED = re.compile(
    r"PytorchStreamReader|failed finding central directory|weights only load failed|not an Arrow"
    r"|file is too small|metadata bytes|decompress|corrupt|\bCRC\b|truncated|cannot identify image"
    r"|not a (gzipped|zip) file|broken data stream|deserializing header|MetadataIncomplete",
    re.IGNORECASE,
)
_STORAGE = re.compile(
    r"PytorchStreamWriter|iostream error|file write failed|no space left|disk quota exceeded"
    r"|read-only file system|input/output error",
    re.IGNORECASE,
)
_LIBRARY = re.compile(
    r"cannot open shared object file|undefined symbol|GLIBC(XX)?_\d|Failed to find C compiler"
)
_NOT_IMPORTED = re.compile(
    r"(?:ModuleNotFoundError|ImportError): "
    r"(No module named '?[\w.]+'?|cannot import name[^\n]{1,200})"
)
"""In what Ray says of a process that could not load its code."""
_LOW_ON_MEMORY = re.compile(r"low on memory|memory running low")
_MEMORY_USED = re.compile(r"[\d.]+ ?GB used / [\d.]+ ?GB limit")
_NO_DETERMINISM = re.compile(r"(\S+) does not have a deterministic implementation")
_DEVICE = re.compile(
    r"(?<![.\w])CUDA\b(?!:\d)|\bcu(DNN|BLAS|SOLVER|FFT|SPARSE|RAND|TENSOR)|\bHIP\b|\b(roc|hip)BLAS|MIOpen"
    r"|device-side assert|illegal memory access|ECC error|NVML|\bXid\b|unspecified launch failure"
    r"|CUDNN_STATUS|CUBLAS_STATUS|CUSOLVER_STATUS|CUFFT_|misaligned address",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Failure:
    """What ended a trial, or one try of it."""

    kind: Kind
    what: str
    """One line."""
    details: str = ""
    """Traceback, or the stacks of all ranks."""

    @property
    def another_try(self) -> bool:
        """Whether running the same epoch again can end otherwise."""
        return self.kind in _ANOTHER_TRY

    @property
    def of_the_gpu(self) -> bool:
        """Whether the process is of no further use: its context on the GPU may be broken."""
        return self.kind in ("device", "no GPU")

    def __str__(self) -> str:
        return f"{self.kind}: {self.what}; {_ADVICE[self.kind]}"

    def as_dict(self) -> dict[str, Any]:
        return {"error": str(self), **asdict(self)}


class GroupFailed(Exception):
    """A group of ranks cannot go on."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)
        self.failure = failure


def triage(error: BaseException) -> Failure:
    """Class of an exception that a training loop, a reader or the ledger raised."""
    name = type(error).__name__
    what = lines_of(error)[0][:500]
    kind = _kind(error, name, str(error))
    if found := _NO_DETERMINISM.search(str(error)):
        kind = "configuration"
        what = f"resources.deterministic is true, and {found[1]} cannot be: set it to false"
    if kind == "error":
        what = f"{name}: {what}"
    return Failure(kind, what, "".join(traceback.format_exception(error)))


_TELLS: tuple[tuple[re.Pattern[str], Kind], ...] = (
    (_OPEN_FILES, "open files"),
    (_PROCESSES, "processes"),
    (_SHARED_MEMORY, "shared memory"),
    (_LIBRARY, "packages"),
    (re.compile("nccl", re.IGNORECASE), "collective"),  # it names CUDA's errors, too
    (_STORAGE, "storage"),
    (_DAMAGED, "damaged file"),
    (_NO_GPU, "no GPU"),
    (_OF_CODE, "error"),
    (_DEVICE, "device"),
    (_COLLECTIVE, "collective"),
)
"""What a library's text says, the surest first."""
_ERRNO: dict[int, Kind] = {
    errno.ENOMEM: "out of memory",
    errno.EMFILE: "open files",
    errno.ENFILE: "open files",
    errno.EAGAIN: "processes",
    **dict.fromkeys(
        (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EHOSTUNREACH, errno.ENETUNREACH), "collective"
    ),
}
_NAMES: dict[str, Kind] = {
    "OutOfMemoryError": "out of memory",
    "DistBackendError": "collective",
    "DistNetworkError": "collective",
    "DistStoreError": "collective",
    "ObjectStoreFullError": "shared memory",
    "OutOfDiskError": "storage",
    "RuntimeEnvSetupError": "packages",
    "UnpicklingError": "damaged file",
    "SafetensorError": "damaged file",
    "BadZipFile": "damaged file",
    "JSONDecodeError": "damaged file",
    "EOFError": "damaged file",
    "UnidentifiedImageError": "damaged file",
    "BadGzipFile": "damaged file",
}
"""Exceptions of libraries that are not imported here."""
_FAR_AWAY = {"botocore", "boto3", "s3fs", "urllib3", "requests", "fsspec", "sqlite3", "aiobotocore"}
"""Modules whose errors are of the storage, or of what leads there."""


def _kind(error: BaseException, name: str, text: str) -> Kind:
    if isinstance(error, Superseded):
        return "superseded"
    if isinstance(error, IntegrityError):
        return "damaged file"
    if isinstance(error, EnvironmentFault):
        return "storage"
    if isinstance(error, UserError) or (isinstance(error, ValueError) and _is_of_medaug(error)):
        return "configuration"
    if isinstance(error, MemoryError) or _MEMORY.search(text):
        return "out of memory"
    if isinstance(error, ImportError):
        return "packages"
    if name in _NAMES and not (_OPEN_FILES.search(text) or _STORAGE.search(text)):
        return _NAMES[name]
    if type(error).__module__.partition(".")[0] in _FAR_AWAY:
        return "storage"
    if isinstance(error, OSError):
        return _kind_of_os(error, text)
    if isinstance(error, TypeError | LookupError | AttributeError | ArithmeticError):
        return "error"  # of code, whatever it says
    return next((kind for tell, kind in _TELLS if tell.search(text)), "error")


def _kind_of_os(error: OSError, text: str) -> Kind:
    if _SHARED_MEMORY.search(text):
        return "shared memory"
    if error.errno in _ERRNO:
        return _ERRNO[error.errno]
    if isinstance(error, ConnectionError | TimeoutError) and error.filename is None:
        return "collective"
    if error.errno is None:  # of a library, with a text of its own
        return next((kind for tell, kind in _TELLS if tell.search(text)), "storage")
    return "storage"


def not_imported(text: str) -> Failure | None:
    """The failure of a process that could not load its code, by what Ray says of it; None where
    that was not the reason. Another node may have the package, another try on this one never."""
    found = _NOT_IMPORTED.findall(text)
    if not found:
        return None
    return Failure("packages", f"a process of the cluster cannot load its code: {found[-1]}", text)


def ran_low_on_memory(text: str) -> Failure | None:
    """The failure of a process that Ray ended to save its node, from what Ray says of it."""
    if not _LOW_ON_MEMORY.search(text):
        return None
    used = f" ({found[0]})" if (found := _MEMORY_USED.search(text)) else ""
    what = f"Ray ended its process, as its node ran low on memory{used}"
    return Failure("out of memory", what, text)


def _is_of_medaug(error: BaseException) -> bool:
    """Whether our own code has raised it: what is wrong is then said for people. A library's
    ValueError is a mistake of ours, not of the study."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
    return module.partition(".")[0] == "medaug"


def root_cause(failures: list[Failure]) -> Failure:
    """The one of several ranks' failures that explains the others.

    When a rank dies or raises, its peers see only a broken collective.
    """
    return min(failures, key=lambda failure: _USUAL_CAUSE_FIRST.index(failure.kind))
