"""A run's log says what happened, to its owner alone, and quotes no input."""

from __future__ import annotations

import logging
import stat
from pathlib import Path

import pytest

from medaug.errors import EnvironmentFault, UserError
from medaug.sweep.events import Outcome
from medaug.sweep.log import NAME, LogListener, run_log


def test_events_and_warnings_are_written_for_the_owner_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listener = LogListener()
    with run_log(tmp_path / "run"):
        listener.on_wave_start("classify", 4, 1)
        listener.on_trial_end(Outcome("abc", "failed", 2, error="hang: rank 1 stands still"))
        logging.getLogger("medaug.elsewhere").warning("a remark")
    logging.getLogger("medaug.elsewhere").warning("too late")
    path = tmp_path / "run" / NAME
    text = path.read_text()
    assert "classify: 4 trials, 1 of them finished before" in text
    assert "abc failed after epoch 2, 0.0 s: hang: rank 1 stands still" in text
    assert "a remark" in text
    assert "too late" not in text
    shown = capsys.readouterr().err
    assert "a remark" in shown, "the terminal has it as well"
    assert "abc failed" not in shown, "which the terminal's own display says"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("error", "shown"),
    [(UserError("/scans/Jane_Doe.nii: empty"), False), (EnvironmentFault("the disk"), True)],
)
def test_an_error_that_may_quote_an_input_is_written_without_its_text(
    tmp_path: Path, error: Exception, shown: bool
) -> None:
    with pytest.raises(type(error)), run_log(tmp_path):
        raise error
    text = (tmp_path / NAME).read_text()
    assert f"ended by {type(error).__name__} (exit code" in text
    assert (str(error) in text) == shown


def test_a_second_run_adds_to_the_first(tmp_path: Path) -> None:
    for _ in range(2):
        with run_log(tmp_path):
            pass
    assert (tmp_path / NAME).read_text().count("the leaderboard is written") == 2
