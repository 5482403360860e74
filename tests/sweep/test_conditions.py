"""Few open files, signals that a shell has ignored, nobody who reads: told before anything is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from medaug.cli.display import TerminalDisplay
from medaug.errors import Interrupted
from medaug.ownership.signals import StopRequests
from medaug.spec import ResourceSpec
from medaug.sweep.cluster.descriptors import needed

ASKS = """
import resource
from medaug.errors import MedaugError
from medaug.spec import ResourceSpec
from medaug.sweep.cluster.descriptors import check_open_files
try:
    check_open_files(ResourceSpec(ranks={ranks}), 2)
    print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
except MedaugError as error:
    print(error.exit_code, error)
"""


def asked(limits: str, ranks: int = 1) -> str:
    command = [
        "sh",
        "-c",
        f'{limits} && exec "$0" -c "$1"',
        sys.executable,
        ASKS.format(ranks=ranks),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ("ulimit -Sn 1024", "1024"),
        ("ulimit -Sn 64 && ulimit -Hn 4096", "160"),
        ("ulimit -n 160", "160"),
        ("ulimit -n 159", "3 open files: Ray needs 160 at once for the trials that fit here, and 159 are allowed; ulimit -n 4096"),
    ],
)  # fmt: skip
def test_few_files_are_told_with_the_number_that_is_needed(limits: str, said: str) -> None:
    """The soft limit is raised as far as it may be."""
    assert asked(limits).startswith(said)


def test_more_workers_need_more_files() -> None:
    assert needed(ResourceSpec(), 2) == 128 + 8 * 4
    assert needed(ResourceSpec(ranks=2), 2) == 128 + 8 * 3
    assert needed(ResourceSpec(cpus_per_rank=0.5), 64) == 128 + 8 * 256
    assert needed(ResourceSpec(cpus_per_rank=0.5, max_concurrent=3), 64) == 128 + 8 * 6
    assert needed(ResourceSpec(ranks=8), 2) == 128 + 8 * 9, "it waits for a larger cluster"


@contextmanager
def handled(number: int, by: signal.Handlers) -> Iterator[StopRequests]:
    before = signal.signal(number, by)
    requests = StopRequests()
    requests.own()
    try:
        yield requests
    finally:
        requests.give_back()
        assert signal.getsignal(number) is by
        signal.signal(number, before)


def test_a_closed_terminal_asks_to_stop() -> None:
    with handled(signal.SIGHUP, signal.SIG_DFL) as requests, requests.noted():
        os.kill(os.getpid(), signal.SIGHUP)
        assert requests.asked.is_set()
        assert requests.name == "SIGHUP"


def test_a_signal_ends_at_once_what_no_trial_waits_for() -> None:
    """Reading scans and drawing the report can take minutes; nothing of them has to be saved."""
    with handled(signal.SIGTERM, signal.SIG_DFL) as requests:
        with pytest.raises(Interrupted, match="stopped by SIGTERM; `medaug resume` goes on"):
            os.kill(os.getpid(), signal.SIGTERM)
        with requests.noted():
            os.kill(os.getpid(), signal.SIGTERM)  # the second asks not to wait
            assert requests.asked_twice.is_set()
        with pytest.raises(Interrupted):
            requests.check()


def test_nohup_goes_on_without_a_terminal() -> None:
    with handled(signal.SIGHUP, signal.SIG_IGN) as requests:
        os.kill(os.getpid(), signal.SIGHUP)
        assert not requests.asked.is_set()


SHOWS = """
import os, sys
from medaug.cli.display import TerminalDisplay
display = TerminalDisplay()
for n in range(3):
    display.note("a line")
with display.progress("work") as advance:
    advance(1, 2, "x")
print("to its end")
"""


@pytest.mark.parametrize("end", ["2>&-", "2> /dev/full", "2> >(true)"])
def test_a_display_that_nobody_reads_stops_nothing(end: str) -> None:
    """What rich itself does of a closed pipe is to end the process with exit code 1."""
    words = ["bash", "-c", f'"$0" -c "$1" {end}', sys.executable, SHOWS]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "to its end\n")


def test_a_display_says_what_it_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    TerminalDisplay().note("a line")
    assert capsys.readouterr().err == "a line\n"
