"""What a step frees serves the next one: page faults are counted, in a process of its own.

Blocks are of 48 MiB: glibc keeps smaller ones by itself once it has seen them freed.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from medaug.train.allocator import keep_freed_memory

_STEPS = """
import resource, sys, torch
from medaug.train.allocator import give_back, keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def faults(n):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(n):
        for _ in range(2):
            torch.ones(48 << 20, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults(8)
kept = faults(8)
give_back()
print(kept, faults(1))
"""


def _faults(how: str) -> tuple[int, int]:
    done = subprocess.run(
        [sys.executable, "-c", _STEPS, how], capture_output=True, text=True, check=True
    )
    kept, after = map(int, done.stdout.split())
    return kept, after


@pytest.mark.skipif(not keep_freed_memory(), reason="the C library is not glibc")
def test_freed_memory_is_used_again_until_it_is_given_back() -> None:
    kept, after = _faults("keep")
    usual, _ = _faults("usual")
    assert 4 * kept < usual
    assert after > 0
