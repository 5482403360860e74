"""The report as it is read: on a phone, on a wide screen, on paper, without a network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

SECTIONS = ("answer", "data", "generated", "results", "paper", "protocol", "time", "checklist")
LEAST_TEXT_PX = 10


@pytest.mark.parametrize("width", [400, 1400])
def test_it_fits_the_window_and_needs_nothing_else(
    finished: Path, window: Callable[..., Page], width: int
) -> None:
    page = window(width)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    report = (finished / "report.html").as_uri()
    page.goto(report)
    assert {url for url in asked if not url.startswith("data:")} == {report}
    root = "document.documentElement"
    assert page.evaluate(f"{root}.scrollWidth <= {root}.clientWidth")
    for section in SECTIONS:
        assert page.locator(f"section#{section}").is_visible(), section
    for image in page.locator("figure img").all():
        assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 300
        # Letters are 8.5 of the 691 points that a broad figure is wide.
        assert image.evaluate("image => image.clientWidth") >= 0.7 * int(
            image.get_attribute("width") or 0
        )


def test_on_paper_nothing_is_cut_off(finished: Path, window: Callable[..., Page]) -> None:
    page = window(690)  # A4 without its margins, at 96 dots an inch
    page.emulate_media(media="print")
    page.goto((finished / "report.html").as_uri())
    cut = page.evaluate(
        "[...document.querySelectorAll('.wide, figure, pre')]"
        ".filter(e => e.offsetParent && e.getBoundingClientRect().left + e.scrollWidth > 691)"
        ".map(e => e.outerHTML.slice(0, 80))"
    )
    assert cut == []
    ink = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ink in ("rgb(255, 255, 255)", "rgba(0, 0, 0, 0)")
