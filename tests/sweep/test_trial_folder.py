"""A trial's folder after all that can happen to it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from toy_trials import config

from medaug.errors import EnvironmentFault, IntegrityError
from medaug.storage.probe import check_storage
from medaug.storage.results import ExtractResult
from medaug.storage.trial_folder import TrialFolder, write_json

DONE = ExtractResult(output="none", rows=0, shape=())


def test_the_configuration_comes_back_with_the_same_key(folder: TrialFolder) -> None:
    assert folder.config() == config("x")
    assert folder.config().key == folder.key


def test_epochs_survive_a_torn_line(folder: TrialFolder) -> None:
    folder.log_epoch({"epoch": 1})
    with open(folder.path / "epochs.jsonl", "ab") as file:
        file.write(b'{"epoch": 2, "metr')
    folder.log_epoch({"epoch": 2})
    folder.log_epoch({"epoch": 3})
    assert [row["epoch"] for row in folder.epochs()] == [1, 2, 3]
    assert folder.epoch() == 3


def test_reopening_forgets_failures_and_stops_but_not_results(folder: TrialFolder) -> None:
    folder.stop(3, {"val/score": 1.0})
    folder.fail({"error": "x"})
    folder.finish(DONE)
    folder.reopen()
    assert folder.stopped() is None
    assert not (folder.path / "failure.json").exists()
    assert folder.result() == DONE


def test_files_are_private_and_whole(folder: TrialFolder, tmp_path: Path) -> None:
    folder.log_epoch({"epoch": 1})
    for path in folder.path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    with pytest.raises(TypeError):
        write_json(tmp_path / "x.json", {"x": object()})
    assert list(tmp_path.glob("*x.json*")) == []


def test_a_result_that_is_not_json_is_an_integrity_error(folder: TrialFolder) -> None:
    (folder.path / "result.json").write_text('{"status": "do')
    with pytest.raises(IntegrityError, match=r"result\.json.*delete it"):
        folder.result()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("result.json", "{}", "output: Field required"),
        ("result.json", '{"stage": "extract", "output": "x", "shape": []}', "rows: Field required"),
        ("result.json", '{"threshold": 0.5}', "predictions is missing"),
        ("config.json", '{"stage": "extract", "fold": 0}', "extract.slices: Field required"),
        ("config.json", '{"stage": "extract", "settings": {}}', "features is missing"),
    ],
)
def test_a_file_that_does_not_parse_is_damage_with_a_name(
    folder: TrialFolder, name: str, content: str, said: str
) -> None:
    path = folder.path / name
    path.write_text(content)
    with pytest.raises(IntegrityError) as caught:
        folder.result() if name == "result.json" else folder.config()
    assert caught.value.exit_code == 5
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert said in message
    assert "resume the run" in message
    assert "\n" not in message


def test_storage_is_checked_for_writing_and_for_room(tmp_path: Path) -> None:
    check_storage(tmp_path / "new", need_bytes=1)
    assert list((tmp_path / "new").iterdir()) == []
    with pytest.raises(EnvironmentFault, match=r"need 1000000000000 MB, have \d+ MB"):
        check_storage(tmp_path, need_bytes=10**18)
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentFault, match="Not a directory"):
        check_storage(tmp_path / "file" / "storage")
