"""Parsers that run away, crash or swallow memory cost one file, never the ingest."""

import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from medaug.data.sandbox import Sandbox
from medaug.errors import EnvironmentFault

pytestmark = pytest.mark.usefixtures("reader_processes")

GOOD = ("({'n': 1}, [__import__('numpy').arange(6, dtype='float32').reshape(2, 3)])",)
BAD_FILE = ("exec('from medaug.data.files import BadFile; raise BadFile(\"rotten; mend it\")')",)
BUG = ("1 / 0",)
SLEEP = ("__import__('time').sleep(99)",)
STOP = ("__import__('signal').raise_signal(__import__('signal').SIGSTOP)",)
CRASH = ("__import__('signal').raise_signal(__import__('signal').SIGSEGV)",)
GLUTTON = ("bytearray(1 << 30)",)
EMPTY = ("({}, [__import__('numpy').zeros((0, 4), 'uint8')])",)


def reasons(tasks, *, workers=2, **limits):
    with Sandbox(eval, workers=workers, **limits) as sandbox:
        return [outcome.reason for outcome in sandbox.map(tasks)]


@pytest.mark.parametrize(
    "module", ["data.reader", "data.look", "data.given", "data.importers.medmnist"]
)
def test_a_parser_loads_nothing_that_it_does_not_need(module):
    """A reader process a core is started for each pass over the files: torch alone takes a second
    and 200 MB of each."""
    heavy = ("torch", "ray", "mlflow", "pyarrow", "sklearn")
    code = f"import sys, medaug.{module}\nprint([m for m in {heavy} if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_results_come_back_in_order_and_exact():
    tasks = [
        (f"({{'n': {i}}}, [__import__('numpy').full((2, {i}), {i}, 'uint8')])",) for i in range(20)
    ]
    with Sandbox(eval, workers=3) as sandbox:
        for i, outcome in enumerate(sandbox.map(tasks)):
            assert outcome.facts == {"n": i}
            np.testing.assert_array_equal(outcome.arrays[0], np.full((2, i), i, np.uint8))
        (outcome,) = sandbox.map([GOOD])
        np.testing.assert_array_equal(
            outcome.arrays[0], np.arange(6, dtype=np.float32).reshape(2, 3)
        )
        assert next(sandbox.map([EMPTY])).arrays[0].shape == (0, 4)


def test_refusals_and_bugs_become_reasons():
    bad, bug, good = reasons([BAD_FILE, BUG, GOOD])
    assert bad == "rotten; mend it"
    assert bug == "cannot be parsed (ZeroDivisionError at <string>:1); convert it"
    assert good is None


def test_memory_is_limited():
    """A parser may not take more than its share, and its worker lives on."""
    glutton, good = reasons([GLUTTON, GOOD], workers=1, memory_bytes=1 << 29)
    assert glutton == "needs more memory than a reader may use; crop or resample it"
    assert good is None


@pytest.mark.parametrize("hang", [SLEEP, STOP], ids=["sleep", "SIGSTOP"])
def test_hanging_parsers_are_ended(hang):  # FAULTS 4
    start = time.monotonic()
    first, second = reasons([hang, GOOD], workers=1, wall_s=1)
    assert first == "reading took more than 1 s; check the file, or split it"
    assert second is None
    assert time.monotonic() - start < 60  # two starts of a worker on a busy machine


def test_crashing_parsers_are_tried_on_other_workers_first(tmp_path):  # FAULTS 3
    log = tmp_path / "log"
    crash = f"(open({str(log)!r}, 'a').write('x'), {CRASH[0]})"
    flaky = tmp_path / "flaky"
    once = f"{GOOD[0]} if __import__('os').path.exists({str(flaky)!r}) else (open({str(flaky)!r}, 'w').close(), {CRASH[0]})"
    crashed, recovered, good = reasons([(crash,), (once,), GOOD])
    assert "died 3 times" in crashed
    assert log.read_text() == "xxx"
    assert recovered is None
    assert good is None


def test_only_a_few_tasks_are_begun_ahead():
    begun = []

    def tasks():
        for i in range(100):
            begun.append(i)
            yield GOOD

    with Sandbox(eval, workers=2) as sandbox:
        outcomes = sandbox.map(tasks())
        next(outcomes)
        assert len(begun) == 5


def test_leaving_waits_for_nobody_and_leaves_no_process():
    before = set(psutil.Process().children())
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt), Sandbox(eval, workers=2) as sandbox:  # noqa: PT012
        outcomes = sandbox.map([GOOD, SLEEP, SLEEP, SLEEP, SLEEP, SLEEP])
        next(outcomes)
        raise KeyboardInterrupt
    assert time.monotonic() - start < 60
    assert set(psutil.Process().children()) <= before


def test_workers_print_nothing_and_leave_no_core(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    noisy = ("__import__('sys').stderr.write('DOE JOHN') and print('DOE JOHN') or ({}, [])",)
    assert reasons([noisy, CRASH])[0] is None
    assert list(tmp_path.iterdir()) == []
    assert "DOE" not in "".join(capfd.readouterr())


class Unimportable:
    """Is pickled here, and cannot be unpickled in a worker."""

    __module__ = "json"

    def __reduce__(self):
        return (exec, ("raise ImportError",))


def test_a_worker_that_cannot_start_is_the_environments_fault():
    with (
        pytest.raises(EnvironmentFault, match=r"reader process did not start .*import json"),
        Sandbox(Unimportable(), workers=1) as sandbox,
    ):
        list(sandbox.map([()]))
