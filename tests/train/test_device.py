"""How ranks compute on GPUs: the flags that are set, and how a process waits."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from medaug.sweep.trial.failures import triage
from medaug.train import device
from medaug.train.device import compute, has_bfloat16, let_waits_sleep
from medaug.train.precision import hopeless


@pytest.fixture(autouse=True)
def put_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32
    fill = torch.utils.deterministic.fill_uninitialized_memory
    yield
    cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = before
    torch.utils.deterministic.fill_uninitialized_memory = fill
    torch.use_deterministic_algorithms(False)
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


@pytest.mark.parametrize("deterministic", [True, False])
def test_what_is_set(deterministic: bool) -> None:
    compute(deterministic=deterministic)
    cudnn = torch.backends.cudnn
    assert torch.are_deterministic_algorithms_enabled() is deterministic
    assert cudnn.deterministic is deterministic
    assert cudnn.benchmark is not deterministic
    assert cudnn.allow_tf32 is not deterministic
    assert torch.backends.cuda.matmul.allow_tf32 is False
    workspace = ":4096:8" if deterministic else None
    assert os.environ.get("CUBLAS_WORKSPACE_CONFIG") == workspace


def test_an_operation_that_cannot_is_told_as_the_studys() -> None:
    compute(deterministic=True)
    x = torch.zeros(4, 4)
    with pytest.raises(RuntimeError) as raised:  # which torch refuses on CPUs, too
        x.put_(torch.tensor([0, 0]), torch.ones(2), accumulate=False)
    failure = triage(raised.value)
    assert failure.kind == "configuration"
    assert "set it to false" in failure.what
    assert "put_" in failure.what
    assert not failure.another_try


DRIVER = """
#include <stdio.h>
#include <stdlib.h>
static unsigned set = 0;
static int note(const char *what, unsigned value) {
  FILE *file = fopen(getenv("NOTES"), "a");
  fprintf(file, "%s %u\\n", what, value);
  fclose(file);
  return 0;
}
extern "C" {
int cuInit(unsigned flags) { return note("init", flags); }
int cuDeviceGet(int *handle, int number) { *handle = 40 + number; return 0; }
int cuDevicePrimaryCtxGetState(int handle, unsigned *flags, int *active) {
  *flags = 0x10 | 0x01; *active = 0; return 0;  // maps host memory, spins
}
int cuDevicePrimaryCtxSetFlags_v2(int handle, unsigned flags) {
  note("device", handle); note("flags", flags); return atoi(getenv("REFUSES"));
}
}
"""


@pytest.mark.parametrize("refuses", [0, 708])
def test_waits_sleep_and_nothing_else_changes(tmp_path: Path, refuses: int) -> None:
    """Against a driver that writes down what it is asked."""
    if (compiler := shutil.which("g++")) is None:
        pytest.skip("a driver that is not there wants a compiler (g++)")
    source = tmp_path / "driver.cpp"
    source.write_text(DRIVER)
    library = tmp_path / "libcuda.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", source, "-o", library], check=True)
    code = (
        "from medaug.train.device import let_waits_sleep as f; import json; print(json.dumps(f()))"
    )
    notes = tmp_path / "notes"
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(tmp_path),
        "NOTES": str(notes),
        "REFUSES": str(refuses),
    }
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) is (refuses == 0)
    assert notes.read_text().splitlines() == ["init 0", "device 40", f"flags {0x10 | 0x04}"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a driver")
def test_without_a_driver_nothing_happens() -> None:
    assert let_waits_sleep() is False


@pytest.mark.parametrize(
    ("capability", "has"), [((7, 0), False), ((7, 5), False), ((8, 0), True), ((9, 0), True)]
)
def test_old_gpus_have_no_bfloat16(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], has: bool
) -> None:
    """V100 and T4, A100 and H100."""
    monkeypatch.setattr(
        device,
        "torch",
        SimpleNamespace(cuda=SimpleNamespace(get_device_capability=lambda _: capability)),
    )
    gpu = torch.device("cuda", 0)
    assert has_bfloat16(gpu) is has
    assert hopeless(gpu) is not has
