"""Rows 14 to 17: hosts that are lost, drained, cut off, or far away, under a trial whose ranks sit on two of them."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from toy_trials import begun, expected_total

from medaug.storage.trial_folder import TrialFolder
from tests.chaos.board import Fault
from tests.chaos.conftest import TOYS
from tests.chaos.spread import spread_trial
from tests.chaos.strikes import RECOVERED_S, account
from tests.cluster.head import Head, Node
from tests.cluster.hosts import Host, hosts

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

EPOCHS, EPOCH_S = 18, 0.4
KILLS = 5
NOTICE_S = 60
LAG_S = 0.1
HANG_S = 10.0
SILENT_S = 60.0
"""How long Ray's head believes in a node that no longer answers; then it is as one that is killed."""


class Spread:
    """A cluster of hosts of one CPU each beside a head that has none, and a trial of two ranks
    that must sit on different ones."""

    def __init__(self, head: Head, places: list[Host], storage: Path, save_s: float) -> None:
        self.head = head
        self.nodes = [head.join(place, "--num-cpus=1") for place in places]
        self.trial = spread_trial(EPOCHS, EPOCH_S)
        self.storage = storage
        script = str(Path(__file__).with_name("spread.py"))
        command = [*head.host.enter, sys.executable, script, str(storage), head.address]
        self._driver = subprocess.Popen(
            [*command, str(EPOCHS), str(EPOCH_S), str(HANG_S), str(save_s)],
            env=head.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def await_epochs(self, more: int = 2, timeout_s: float = 300) -> None:
        """Wait until so many epochs have begun that nobody disturbed."""
        first = len(begun(self.storage, self.trial))
        deadline = time.monotonic() + timeout_s
        while len(begun(self.storage, self.trial)) < first + more:
            assert self._driver.poll() is None, self._driver.communicate()[0]
            assert time.monotonic() < deadline, "the trial stands still"
            time.sleep(0.02)

    def busy(self) -> list[Node]:
        """Nodes with a rank of the trial."""
        return [node for node in self.nodes if _ranks(node)]

    def finish(self) -> None:
        """The trial ends, with the result of one that nobody disturbed."""
        output, _ = self._driver.communicate(timeout=300)
        assert self._driver.returncode == 0, output
        folder = TrialFolder(self.storage / "experiment", self.trial.key)
        result = folder.result()
        assert result is not None
        assert result.scores["total"] == expected_total(EPOCHS, 2)

    def failures(self) -> list[dict[str, Any]]:
        return TrialFolder(self.storage / "experiment", self.trial.key).failures()


@contextmanager
def spread(folder: Path, places: list[Host], save_s: float = 0.0) -> Iterator[Spread]:
    """The first of ``places`` is the head's; epochs are saved when ``save_s`` have passed."""
    environment = {
        "PYTHONPATH": f"{TOYS}:{Path(__file__).parents[2]}",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": str(NOTICE_S),
    }
    with Head(folder, cpus=0, host=places[0], dashboard=False, **environment) as head:
        yield Spread(head, places[1:], folder, save_s)


def _ranks(node: Node) -> list[int]:
    return [one.pid for one in node.processes() if one.name().startswith("ray::Rank")]


def test_killed_nodes(faults: Callable[[int, str], Fault], tmp_path: Path) -> None:
    fault = faults(14, "a node killed")
    dice = random.Random(14)
    strikes = []
    with hosts(4) as places, spread(tmp_path, places) as cluster:
        joining: list[threading.Thread] = []
        for _ in range(KILLS):
            cluster.await_epochs()
            time.sleep(dice.uniform(0, EPOCH_S))
            for thread in joining:
                thread.join()
            victim = dice.choice(cluster.busy())
            fault.inject()
            strikes.append(time.time())
            victim.kill()
            cluster.nodes.remove(victim)

            def join(place: Host = victim.host) -> None:  # as an autoscaler would bring one
                cluster.nodes.append(cluster.head.join(place, "--num-cpus=1"))

            joining = [threading.Thread(target=join)]
            joining[0].start()
        cluster.finish()
        joining[0].join()
    account(fault, strikes, tmp_path, [cluster.trial])
    assert len(begun(tmp_path, cluster.trial)) <= EPOCHS + KILLS


def test_a_drained_node(faults: Callable[[int, str], Fault], tmp_path: Path) -> None:
    """The trial saves its last epoch, and is elsewhere before the node is gone."""
    fault = faults(15, f"a node drained with {NOTICE_S} s of notice")
    with hosts(4) as places, spread(tmp_path, places, save_s=3600) as cluster:
        cluster.await_epochs()
        victim = cluster.busy()[1]
        fault.inject()
        when = time.time()
        victim.ask_to_leave()
        while _ranks(victim):
            assert not victim.left(), "the node went with the trial on it"
            time.sleep(0.05)
        cluster.await_epochs()
        cluster.finish()
        (failure,) = cluster.failures()
    assert "is being drained" in failure["error"]
    account(fault, [when], tmp_path, [cluster.trial])
    assert len(begun(tmp_path, cluster.trial)) == EPOCHS, "an epoch was trained twice"


@pytest.mark.parametrize("seed", range(2))
def test_a_host_cut_off(faults: Callable[[int, str], Fault], tmp_path: Path, seed: int) -> None:
    fault = faults(16, "a host cut off from the others")
    dice = random.Random(16 + seed)
    with hosts(4) as places:
        if not places[0].enter:
            pytest.skip("needs network namespaces: root, ip (iproute2) and MEDAUG_NETNS=1")
        with spread(tmp_path, places) as cluster:
            cluster.await_epochs()
            time.sleep(dice.uniform(0, EPOCH_S))
            victim = cluster.busy()[seed]
            fault.inject()
            when = time.time()
            victim.host.cut()
            cluster.await_epochs()
            victim.host.heal()
            cluster.finish()
            _await_end_of_ranks(victim)  # the cluster has given it up, and tells it so
    account(fault, [when], tmp_path, [cluster.trial], within_s=SILENT_S + RECOVERED_S)
    assert len(begun(tmp_path, cluster.trial)) <= EPOCHS + 1
    print([row["error"] for row in cluster.failures()])


def test_a_host_far_away(faults: Callable[[int, str], Fault], tmp_path: Path) -> None:
    fault = faults(17, f"{2000 * LAG_S:.0f} ms from one host to the others and back")
    with hosts(3, last_lags_s=LAG_S) as places:
        if not places[0].enter:
            pytest.skip("needs network namespaces: root, ip (iproute2) and MEDAUG_NETNS=1")
        fault.inject()
        with spread(tmp_path, places) as cluster:
            cluster.finish()
            assert cluster.failures() == []
    starts = begun(tmp_path, cluster.trial)
    assert len(starts) == EPOCHS, "the trial was begun again though nothing had failed"
    assert (starts[-1].time - starts[0].time) / (EPOCHS - 1) > EPOCH_S + LAG_S, "nothing was slow"
    fault.survive()


def _await_end_of_ranks(node: Node, timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while left := _ranks(node):
        assert time.monotonic() < deadline, f"ranks {left} of a lost host live on"
        time.sleep(0.2)
