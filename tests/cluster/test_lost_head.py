"""submit -> the head is killed -> a new head -> resume -> leaderboard, as a person types it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.cluster.head import Head

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1800)]

PATIENCE_S = 900
STUDY = """\
name: small
data: {image_size: 32, phantom: {patients: 12, slices: [3, 4]}}
split: {folds: 2}
arms: {none: {}, duplicate: {}}
classifier: {kind: linear, epochs: 6, lr: 0.05}
sweep: {n_synthetic: [12], seeds: [0, 1, 2]}
"""


def finished(folder: Path) -> set[Path]:
    return set(folder.glob("trials/*/result.json"))


def test_a_new_head_goes_on(tmp_path: Path) -> None:
    def type_in(*words: object, exit_code: int = 0) -> str:
        done = head.medaug(*words, timeout_s=PATIENCE_S)
        shown = " ".join(map(str, words)).replace(str(tmp_path), "…")
        print(f"\n$ medaug {shown}\n{done.stdout}{done.stderr}(exit code {done.returncode})")
        assert done.returncode == exit_code, done.stderr
        return done.stdout + done.stderr

    spec, storage = tmp_path / "small.yaml", tmp_path / "runs"
    spec.write_text(STUDY)
    with Head(tmp_path) as head:
        type_in("submit", spec, "--address", head.url, "--storage", storage)
        deadline = time.monotonic() + PATIENCE_S
        while len(before := finished(storage / "small")) < 4:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        when = {path: path.stat().st_mtime_ns for path in before}
        print(f"\n# the head is killed; {len(before)} of 12 trials are done")
        head.kill()
        type_in("status", "small", "--address", head.url, "--storage", storage, exit_code=3)
        type_in("status", "small", "--storage", storage)
        head.start()
        print("# a new head, which knows nothing of the old one")
        told = type_in("resume", "small", "--address", head.url, "--storage", storage, "--follow")
        assert "done before" in told
        assert {path: path.stat().st_mtime_ns for path in before} == when, "a finished trial reran"
        assert len(finished(storage / "small")) == 12
        type_in("leaderboard", "small", "--storage", storage)
