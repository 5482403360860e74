"""Failure triage: each failed trial carries its class and the next thing to try."""

from __future__ import annotations

import errno

import pytest
import torch
import torch.distributed as dist

from medaug.errors import EnvironmentFault, IntegrityError, UserError
from medaug.sweep.trial.failures import Failure, root_cause, triage


@pytest.mark.parametrize(
    ("error", "kind", "another_try"),
    [
        (UserError("fold: 7 is not one of 0..4"), "configuration", False),
        (ValueError("no"), "configuration", False),
        (FileNotFoundError(errno.ENOENT, "No such file", "x"), "configuration", False),
        (IntegrityError("shard 3: hash"), "damaged file", False),
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
