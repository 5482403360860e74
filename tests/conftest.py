"""One small study, run once as a user runs it, for all tests of what it leaves behind."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from xdist.scheduler import LoadGroupScheduling

# Helper modules are found by their full names.
sys.path.append(str(Path(__file__).parents[1]))

# What is faster here must not decide what a test computes; the tests of `auto` lift this.
os.environ["MEDAUG_PRECISION"] = "fp32"

# Started in the background, tests inherit an ignored SIGINT, and so would all that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

from medaug.data import sandbox
from tests.data.in_process import InProcess
from tests.integration.small_study import SMALL, Finished, medaug

PROCESS = sandbox._Worker

SHARED = ("ray_cluster", "small")
"""Fixtures of the session that take so long that one process should make each."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In several processes, the tests that share a fixture begin first, and stay together."""
    if not hasattr(config, "workerinput"):
        return
    first: dict[str, list[pytest.Item]] = {name: [] for name in SHARED}
    rest: list[pytest.Item] = []
    for item in items:
        used = [name for name in SHARED if name in getattr(item, "fixturenames", ())]
        for name in used[:1]:
            item.add_marker(pytest.mark.xdist_group(name))
        (first[used[0]] if used else rest).append(item)
    items[:] = [*(item for shared in first.values() for item in shared), *rest]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadGroupScheduling | None:
    """With ``--dist loadgroup``: by the group where a test has one, else by its file."""
    if config.getoption("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadGroupScheduling

    class ByGroupOrFile(LoadGroupScheduling):
        def _split_scope(self, nodeid: str) -> str:
            scope = super()._split_scope(nodeid)
            return nodeid.split("::", 1)[0] if scope == nodeid else scope

    return ByGroupOrFile(config, log)


@pytest.fixture(scope="session", autouse=True)
def _read_in_process() -> Iterator[None]:
    """Files are parsed in this process: a reader process a core and an ingest would take most of
    the time. What is started as a command has its reader processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sandbox, "_Worker", InProcess)
        yield


@pytest.fixture
def reader_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of what reader processes are for: files are parsed in them, as for users."""
    monkeypatch.setattr(sandbox, "_Worker", PROCESS)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("spine")
    spec = folder / "small.yaml"
    spec.write_text(SMALL)
    done = medaug("run", spec, "--storage", folder / "runs", timeout_s=500)
    assert done.returncode == 0, done.stderr
    return Finished(spec, folder / "runs", done.stdout + done.stderr)
