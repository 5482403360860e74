"""One small study, run once as a user runs it, for all tests of what it leaves behind."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from xdist.scheduler import LoadFileScheduling

    from tests.ranks import Ranks

# Helper modules are found by their full names.
sys.path.append(str(Path(__file__).parents[1]))

# Several processes of tests share the cores: threads of each would mostly spin for one another,
# which doubled the processor time of whole files. Before numpy and torch are imported.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

# What is faster here must not decide what a test computes; the tests of `auto` lift this.
os.environ["MEDAUG_PRECISION"] = "fp32"

# Resamples of patients follow pseudonyms: a key that each machine draws would give each its own,
# and what a test measures with them its own luck. Nor does a test write into the home of whoever
# runs it.
if "PYTEST_XDIST_WORKER" not in os.environ:  # one for all processes of the tests
    KEY = tempfile.mkstemp(prefix="medaug-tests-", suffix=".key")[1]
    Path(KEY).write_text("5eed" * 16)
    os.environ["MEDAUG_SITE_KEY_FILE"] = KEY
    atexit.register(os.unlink, KEY)

# Started in the background, tests inherit an ignored SIGINT, and so would all that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

from medaug.data import sandbox
from tests.data.in_process import InProcess
from tests.integration.small_study import SMALL, Finished, medaug

ROOT = Path(__file__).parents[1]
PROCESS = sandbox._Worker

SHARED = {
    "ray_cluster": ("ray_cluster", "ray_address"),
    "small": ("small: Finished",),
    "monai": ("pytestmark = needs_monai",),
    "two_ranks": ("two_ranks:", "two_ranks,"),
}
"""What takes so long that one process should have each: fixtures of the session and an import; and
the words by which a file of tests asks for them."""


@cache
def shared_by(file: str) -> str | None:
    """What the tests of ``file`` (from the root of the project) share with others."""
    text = (ROOT / file).read_text()
    return next((name for name, asks in SHARED.items() if any(a in text for a in asks)), None)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In several processes, the tests that share much begin first, then those that start a
    Ray: files of minutes, and one that began last would be waited for by all."""
    if hasattr(config, "workerinput"):
        last = [*SHARED, "ray", None]
        items.sort(key=lambda item: last.index(_kind(item)))


def _kind(item: pytest.Item) -> str | None:
    return shared_by(item.nodeid.split("::")[0]) or (
        "ray" if item.get_closest_marker("ray") else None
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadFileScheduling | None:
    """With ``--dist loadfile``: a file stays in one process, and so do files that share much."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class ByFileOrShared(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return shared_by(file) or file

    return ByFileOrShared(config, log)


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
def two_ranks() -> Iterator[Ranks]:
    from tests.ranks import Ranks

    ranks = Ranks(2)
    yield ranks
    ranks.close()


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("spine")
    spec = folder / "small.yaml"
    spec.write_text(SMALL)
    done = medaug("run", spec, "--storage", folder / "runs", timeout_s=500)
    assert done.returncode == 0, done.stderr
    return Finished(spec, folder / "runs", done.stdout + done.stderr)
