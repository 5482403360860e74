"""What a reviewer meets in MLflow: the real server, in a real browser."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import pytest

from medaug.results.leaderboard import leaderboard_of
from medaug.results.numbers import with_interval

if TYPE_CHECKING:
    from mlflow.entities import Run
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser


@dataclass(frozen=True)
class Server:
    """``medaug ui`` on a finished run."""

    folder: Path
    url: str
    said: str

    def run(self, query: str) -> Run:
        """The newest run that the query finds."""
        from mlflow import MlflowClient

        client = MlflowClient(f"sqlite:///{self.folder.parent}/mlflow.db")
        experiment = client.get_experiment_by_name(f"medaug/{self.folder.name}")
        return client.search_runs([experiment.experiment_id], query)[0]

    def page_of(self, run: Run) -> str:
        page = f"#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
        start = re.search(r"http://\S+token=[\w-]+", self.said)
        assert start, self.said
        return f"{start[0]}{page}?workflowType=machine_learning"


@pytest.fixture(scope="module")
def server(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log"
    words = ["ui", "--storage", str(finished.parent), "--port", str(port)]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": ""}
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "medaug", *words],
            stdout=out,
            stderr=out,
            env=environment,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while not _answers(url):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield Server(finished, url, log.read_text())
    finally:
        os.killpg(process.pid, 15)
        process.wait(60)


def _answers(url: str) -> bool:
    try:
        with urlopen(f"{url}/health", timeout=5):
            return True
    except HTTPError as refusal:
        return refusal.code == 403  # without the token
    except (URLError, OSError):
        return False


def test_the_printed_link_opens_a_leaderboard(server: Server, window: Callable[..., Page]) -> None:
    (link,) = re.findall(r"made: (http\S+)", server.said)
    page = window(1600)
    page.goto(link)
    board = leaderboard_of(server.folder)
    page.get_by_role("link", name=board.rows[-1].title, exact=True).wait_for()
    headers = page.locator(".ag-header-cell[col-id*='`']")
    left = "cells => cells.map(e => [e.getBoundingClientRect().left, e.innerText.trim()])"
    assert [name for _, name in sorted(headers.evaluate_all(left))] == [
        *("Run Name", "rank", "arm", "n_synthetic", "ngf"),
        *("balanced accuracy", "gain", "conclusion", "flags"),
    ]

    def column(name: str) -> list[str]:
        cells = page.locator(f'.ag-row [col-id="{name}"]')
        index = "e.closest('[row-index]').getAttribute('row-index')"
        found = cells.evaluate_all(f"cells => cells.map(e => [+{index}, e.innerText.trim()])")
        return [text for _, text in sorted(found)]

    assert column("metrics.`rank`") == [str(row.rank) for row in board.rows]
    assert column("params.`arm`") == [row.arm for row in board.rows]
    assert column("tags.`flags`") == ["; ".join(row.flags) or "-" for row in board.rows]
    best = board.rows[0]
    gain = with_interval(best.gain, best.gain_low, best.gain_high, signed=True)
    assert best.synthetic
    assert column("tags.`gain`")[0] == gain
    assert "reference" in column("tags.`gain`")


def test_the_sweep_holds_its_trials_and_leads_to_everything(
    server: Server, window: Callable[..., Page]
) -> None:
    page = window(1400)
    page.goto(server.page_of(server.run("tags.stage = 'sweep'")))
    page.get_by_text("Child runs", exact=True).wait_for()
    page.get_by_text("A gain from synthetic data is shown on these patients.").wait_for()
    page.get_by_role("link", name="acgan ngf=4 +300", exact=True).first.wait_for()
    with page.expect_popup() as opened:
        page.get_by_role("link", name="report", exact=True).click()
    report = opened.value.frame_locator("iframe")
    report.get_by_role("heading", name="The results").wait_for(timeout=120_000)


def test_a_trial_shows_its_figure(server: Server, window: Callable[..., Page]) -> None:
    trial = server.run("tags.stage = 'generate' and tags.arm = 'acgan'")
    page = window(1400)
    page.goto(server.page_of(trial))
    page.get_by_role("heading", name=trial.info.run_name).wait_for()
    page.get_by_text("train/d_loss").first.wait_for()
    page.get_by_role("link", name="made", exact=True).wait_for()  # the sweep is its parent
    with page.expect_popup() as opened:
        page.get_by_role("link", name="curves", exact=True).click()
    figure = opened.value.locator("img[src*='curves.png'], img[src^='blob:']").first
    figure.wait_for(timeout=120_000)
    assert figure.evaluate("image => image.decode().then(() => image.naturalWidth)") > 500
