"""Row 23, of whole studies: the disk fills up somewhere between the first trial and the last one.

Whatever had been written by then, with room again the study goes on to the leaderboard of one that
nothing has happened to.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from medaug.errors import EnvironmentFault
from medaug.ownership.seals import check_run
from medaug.results.leaderboard import leaderboard_of
from medaug.sweep.trial.failures import GroupFailed
from medaug.verify import verify
from tests.chaos.board import Fault
from tests.chaos.injectors import fill, small_disk
from tests.integration.small_study import SMALL, medaug
from tests.storage.sealed_runs import begun_run, go_on, site_key, small_study

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(3600)]

SIZES = 20


@pytest.fixture
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def _key(tmp_path: Path) -> Iterator[None]:
    with site_key(tmp_path / "site.key"):
        yield


def board_of(folder: Path) -> dict[str, Any]:
    return without_times(leaderboard_of(folder).to_json())


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k != "device_hours"}
    return [without_times(each) for each in value] if isinstance(value, list) else value


def written(folder: Path) -> int:
    """Bytes on the disk."""
    return sum(p.stat().st_blocks * 512 for p in folder.rglob("*") if p.is_file())


@pytest.mark.usefixtures("_one_thread", "_key")
def test_20_sizes_of_a_disk(faults: Callable[[int, str], Fault], tmp_path: Path) -> None:
    """All that a rank and the driver write, in this process: stores, models, checkpoints, results,
    journal; the room that is left ends it at twenty places."""
    fault = faults(23, "the disk full at 20 sizes, the leaderboards after `resume` equal")
    calm = small_study(tmp_path / "calm")
    begun = written(begun_run(calm).parent)
    go_on(calm)
    trials = written(calm.storage) - begun
    expected = board_of(calm.storage / calm.name)
    assert expected["rows"]
    said, kinds = [], []
    for size in range(SIZES):
        with small_disk(tmp_path / f"disk-{size}", begun + 2 * trials + (4 << 20)) as disk:
            study = small_study(disk / "runs")
            folder = begun_run(study)
            filler = fill(disk, leave_bytes=trials * size // SIZES)
            fault.inject()
            try:
                go_on(study)
            except EnvironmentFault as why:  # of what the driver writes
                said.append(str(why))
            except GroupFailed as why:
                said.append(why.failure.what)
                kinds.append(why.failure.kind)
            check_run(folder)  # nothing of what was written is less than whole
            filler.unlink()
            go_on(study)
            assert board_of(folder) == expected, f"of the disk that ended with: {said[-1]}"
            assert check_run(folder).remarks(folder.name) == []
            assert all(finding.whole for finding in verify(folder))
            fault.survive()
    assert len(said) >= SIZES - 4, "the disk was hardly ever full"
    assert len(set(said)) > 3, "always at the same place"
    assert all("need" in text or "No space left" in text for text in said), said
    assert set(kinds) == {"storage"}


WITHOUT_OUTPUT = 'exec "$@" >&- 2>&-'


@pytest.mark.ray
def test_the_command_says_it_and_resume_goes_on(
    faults: Callable[[int, str], Fault], tmp_path: Path, temporary: Path
) -> None:
    """``medaug run`` itself, ranks and all, after so many results; and once with nowhere to write
    what it says."""
    spec = tmp_path / "small.yaml"
    spec.write_text(SMALL)
    calm = tmp_path / "calm"
    fault = faults(46, "`medaug run` with standard output and error closed")
    fault.inject()
    command = [sys.executable, "-m", "medaug", "run", str(spec), "--storage", str(calm)]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": "", "TMPDIR": str(temporary)}
    silent = subprocess.run(
        ["bash", "-c", WITHOUT_OUTPUT, "bash", *command], env=environment, timeout=900
    )
    assert silent.returncode == 0
    fault.survive()
    expected = without_times(
        json.loads(medaug("leaderboard", "small", "--json", "--storage", calm).stdout)
    )
    fault = faults(23, "the disk full under `medaug run`")
    for results in (1, 6, 15):
        with small_disk(tmp_path / f"disk-{results}", 600 << 20) as disk:
            storage = disk / "runs"
            driver = subprocess.Popen(
                [*command[:-1], str(storage)],
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            deadline = time.monotonic() + 600
            while len(list(storage.glob("small/trials/*/result.json"))) < results:
                assert driver.poll() is None
                assert time.monotonic() < deadline, f"no {results} results"
                time.sleep(0.05)
            fault.inject()
            filler = fill(disk, leave_bytes=16 << 10)
            _, err = driver.communicate(timeout=600)
            assert driver.returncode == 3, err
            last = err.strip().splitlines()[-1]
            assert last.startswith("error: "), err
            assert "need" in last or "No space left" in last, err
            filler.unlink()
            done = medaug("resume", "small", "--storage", storage, timeout_s=900)
            assert done.returncode == 0, done.stderr
            told = medaug("leaderboard", "small", "--json", "--storage", storage)
            assert without_times(json.loads(told.stdout)) == expected
            assert told.stderr == ""
            fault.survive()
