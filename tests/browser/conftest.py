"""A finished run, and a headless Chromium to look at what it shows."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page
# As in tests/train: helper modules are found by their full names.
sys.path.append(str(Path(__file__).parents[2]))

PATIENCE_MS = 120_000
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    api = pytest.importorskip("playwright.sync_api", reason="needs pip install 'medaug[browser]'")
    if CHROMIUM is None:
        pytest.skip("needs chromium")
    with api.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def window(browser: Browser) -> Iterator[Callable[..., Page]]:
    """``window(width)``: a new page in a profile of its own."""
    opened = []

    def make(width: int, height: int = 900) -> Page:
        page = browser.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(PATIENCE_MS)
        # MLflow opens a panel over a quarter of the first page that a profile sees.
        page.add_init_script("localStorage['mlflow.assistant.fab.autoOpenedOnFirstLoad_v1'] = true")
        opened.append(page)
        return page

    yield make
    for page in opened:
        page.close()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Path:
    """The folder of a run in which 300 rows of the wider ACGAN help, told to MLflow."""
    from medaug.plan.trials import plan_study
    from medaug.results.leaderboard import leaderboard_of
    from medaug.results.report.document import write_report
    from medaug.tracking.tracker import Tracker
    from tests.tracking.made_runs import SLICES, made_run, study
    from tests.tracking.test_tracker_showcase import publish_generator

    spec = study(
        tmp_path_factory.mktemp("finished"),
        split={"folds": 2},
        arms={"none": {}, "duplicate": {}, "classical": {}, "acgan": {"epochs": 20, "ndf": 4}},
        sweep={"n_synthetic": [100, 300], "seeds": [0, 1, 2], "grid": {"acgan.ngf": [4, 8]}},
    )
    folder = made_run(spec, lambda at, seed: 1.2 * (at["n_synthetic"] == 300 and "ngf" in at))
    for maker in plan_study(spec, SLICES).generate:
        if maker.arm == "acgan":
            publish_generator(spec, maker)
    report = write_report(folder)
    with Tracker(spec, folder, pace_s=0.02) as tracker:
        tracker.finish(leaderboard_of(folder), report)
    return folder
