"""GPUs and NCCL on this machine."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from medaug.doctor.finding import Finding, Place, failed, passed, warned
from medaug.units import size


def examine(place: Place) -> Iterator[Finding]:
    import torch

    if not torch.cuda.is_available():
        if shutil.which("nvidia-smi"):
            what = f"this machine has a driver, but torch {torch.__version__} sees no GPU"
            fix = "install torch's CUDA build that the driver supports (nvidia-smi names it)"
            yield warned("gpu", what, fix)
        else:
            yield passed("gpu", "none here: trials of this machine run on CPUs")
        return
    for index in range(torch.cuda.device_count()):
        try:
            x = torch.ones(256, 256, device=f"cuda:{index}")
            assert float((x @ x).sum()) == 256**3
            about = torch.cuda.get_device_properties(index)
            yield passed(f"gpu {index}", f"{about.name}, {size(about.total_memory)}")
        except (RuntimeError, AssertionError) as fault:
            what = " ".join(str(fault).split())[:200] or "computes wrong sums"
            yield failed(f"gpu {index}", what, "look at nvidia-smi and dmesg; take it out of Ray")
    yield _nccl()


def _nccl() -> Finding:
    """One rank's sum over itself: it loads the library and makes a communicator."""
    import torch
    from torch import distributed

    if not distributed.is_nccl_available():
        fix = "install torch's CUDA build, or keep resources.ranks at 1"
        return failed("nccl", "torch is built without it", fix)
    version = ".".join(map(str, torch.cuda.nccl.version()))
    try:
        with tempfile.TemporaryDirectory() as folder:
            store = (Path(folder) / "store").as_uri()
            distributed.init_process_group("nccl", init_method=store, rank=0, world_size=1)
            x = torch.ones(1, device="cuda:0")
            distributed.all_reduce(x)
            torch.cuda.synchronize()
            distributed.destroy_process_group()
    except RuntimeError as fault:
        what = " ".join(str(fault).split())[:200]
        fix = "set NCCL_DEBUG=INFO and run doctor again; /dev/shm is often too small"
        return failed("nccl", f"{version}: {what}", fix)
    return passed("nccl", version)
