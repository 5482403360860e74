"""What a step would cost on a GPU, counted without one.

Two instruments. :class:`Counter` counts operations that would be kernels, and those that make the
host wait. :func:`fake_cuda` gives tensors that say they are on a GPU and hold nothing: with them a
mixture of devices is an error and a copy between devices is seen. (Their backward pass wants a
real driver, so losses are counted on the CPU.)
"""

from __future__ import annotations

import contextlib
import ctypes
import shutil
import subprocess
from collections import Counter as Counts
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

GUARD = """
#include <c10/core/impl/DeviceGuardImplInterface.h>
namespace c10::impl { C10_REGISTER_GUARD_IMPL(CUDA, NoOpDeviceGuardImpl<DeviceType::CUDA>) }
"""

NO_KERNEL = {
    "view", "_unsafe_view", "reshape", "expand", "permute", "transpose", "t", "select", "slice",
    "unsqueeze", "squeeze", "detach", "alias", "as_strided", "split", "split_with_sizes", "chunk",
    "unbind", "unfold", "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided",
    "is_pinned", "lift_fresh", "_reshape_alias", "diagonal", "movedim", "real",
    "_record_function_enter_new", "_record_function_exit",  # a profiler's marks
}  # fmt: skip
WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "item"}


class Counter(TorchDispatchMode):
    """Counts operations (``launches``) and what waits for the device (``waits``), by name."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counts[str] = Counts()
        self.waits: Counts[str] = Counts()
        self.kernels = 0
        """As :attr:`launches`, but an operation on lists counts as CUDA would take it: once where
        its lists are alike in pairs, else once for each tensor."""

    @property
    def launches(self) -> int:
        return sum(self.operations.values())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if name in WAITS:
            self.waits[name] += 1
        elif name == "_to_copy" and _waits(args[0], kwargs):
            self.waits[f"to {kwargs['device']}"] += 1
        elif name in ("index", "index_put_") and _by_mask(args[1]):
            self.waits["boolean mask"] += 1
        if name not in NO_KERNEL:
            self.operations[name] += 1
            self.kernels += _kernels(name, args)
        return func(*args, **kwargs)


def _kernels(name: str, args: Any) -> int:
    """After ``can_use_fast_route`` in torch's ForeachUtils.h; copies may change the type."""
    if not name.startswith("_foreach_"):
        return 1
    lists = [
        x for x in args if isinstance(x, list | tuple) and x and isinstance(x[0], torch.Tensor)
    ]
    of_type = [{x.dtype for x in each} for each in lists]
    alike = all(len(types) == 1 for types in of_type) and (
        name == "_foreach_copy_" or len(set.union(*of_type)) == 1
    )
    for first, *others in zip(*lists, strict=True):
        dense = first.is_contiguous() or first.permute(_by_stride(first)).is_contiguous()
        same = all((x.shape, x.stride()) == (first.shape, first.stride()) for x in others)
        alike = alike and dense and same
    return 1 if alike else len(lists[0])


def _by_stride(x: torch.Tensor) -> list[int]:
    return sorted(range(x.ndim), key=x.stride, reverse=True)


def _waits(x: torch.Tensor, kwargs: dict[str, Any]) -> bool:
    """A copy between host and device for which the host waits."""
    device = kwargs.get("device")
    return (
        device is not None
        and torch.device(device).type != x.device.type
        and not kwargs.get("non_blocking", False)
    )


def _by_mask(index: Any) -> bool:
    return any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in index)


@pytest.fixture(scope="session")
def guard(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Torch built for CPUs asks for a driver even where tensors are fake: this one does nothing."""
    if torch.cuda.is_available() or torch.version.cuda:
        return
    if (compiler := shutil.which("g++")) is None:
        pytest.skip("fake CUDA tensors want a compiler (g++) where torch is built for CPUs")
    folder, root = tmp_path_factory.mktemp("guard"), Path(torch.__file__).parent
    source, library = folder / "guard.cpp", folder / "guard.so"
    source.write_text(GUARD)
    options = ["-shared", "-fPIC", "-O0", "-std=c++20", f"-I{root}/include", f"-L{root}/lib"]
    subprocess.run([compiler, *options, str(source), "-o", str(library), "-lc10"], check=True)
    ctypes.CDLL(str(library))


@pytest.fixture
def fake_cuda(guard: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter]:
    """Within it, tensors may be made on ``cuda``; what is done to them is counted."""
    whole = torch.Generator

    class Generator:
        """Of a device that is not there: it draws nothing."""

        def __new__(cls, device: Any = "cpu") -> Any:
            on_cpu = torch.device(device).type == "cpu"
            return whole() if on_cpu else super().__new__(cls)

        def manual_seed(self, seed: int) -> None:
            return None

    monkeypatch.setattr(torch, "Generator", Generator)
    with contextlib.ExitStack() as stack:
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        yield stack.enter_context(Counter())
