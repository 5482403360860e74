"""Going on with what another version began is said, not done silently."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from medaug.errors import UserError
from medaug.ownership.lease import Lease
from medaug.ownership.version import NOTE, note_version
from medaug.spec import ResourceSpec
from medaug.storage.trial_folder import read_json
from medaug.sweep import Sweep


@pytest.fixture
def become(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Be another version of medaug from now on."""
    return lambda version: monkeypatch.setattr(metadata, "version", lambda name: version)


def test_another_version_of_the_series_is_told(
    tmp_path: Path, become: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    become("0.3.1")
    note_version(tmp_path)
    note_version(tmp_path)
    assert caplog.text == ""
    become("0.3.2")
    note_version(tmp_path)
    assert "was begun with medaug 0.3.1, this is 0.3.2" in caplog.text
    caplog.clear()
    become("0.3.1")
    note_version(tmp_path)
    assert caplog.text == "", "the first version is the one that counts"
    assert read_json(tmp_path / NOTE) == {"medaug": "0.3.1", "then": ["0.3.2"]}


def test_another_series_goes_on_only_when_it_is_allowed_to(
    tmp_path: Path, become: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    become("0.3.1")
    note_version(tmp_path)
    become("0.4.0")
    with pytest.raises(UserError, match=r"begun with medaug 0\.3\.1, this is 0\.4\.0.*--allow-ver"):
        note_version(tmp_path)
    assert read_json(tmp_path / NOTE) == {"medaug": "0.3.1", "then": []}
    note_version(tmp_path, allow_skew=True)
    assert "0.4.0" in caplog.text
    assert read_json(tmp_path / NOTE) == {"medaug": "0.3.1", "then": ["0.4.0"]}


def test_a_refused_version_leaves_the_experiment_free(
    tmp_path: Path, become: Callable[[str], None]
) -> None:
    experiment = tmp_path / "experiment"
    experiment.mkdir()
    become("0.3.1")
    note_version(experiment)
    become("0.4.0")
    with pytest.raises(UserError, match="--allow-version-skew"):
        Sweep(experiment, tmp_path, ResourceSpec()).__enter__()
    with Lease(experiment):
        pass
