"""Going on with what another version began is said, not done silently."""

from __future__ import annotations

import logging
from importlib import metadata
from pathlib import Path

import pytest

from medaug.sweep.version import note_version


def test_another_version_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    this = metadata.version("medaug")
    note_version(tmp_path)
    note_version(tmp_path)
    assert caplog.text == ""
    monkeypatch.setattr(metadata, "version", lambda name: "9.9.9")
    note_version(tmp_path)
    assert f"was begun with medaug {this}, this is 9.9.9" in caplog.text
    monkeypatch.undo()
    caplog.clear()
    note_version(tmp_path)
    assert caplog.text == "", "the first version is the one that counts"
