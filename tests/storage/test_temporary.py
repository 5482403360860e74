"""Temporary folders: gone at the end, and after a process that had no end, at the next start."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from medaug.storage.files import private_folder
from medaug.storage.temporary import IN_USE, remove_dead, temporary_folder

HOLD = """\
import os, sys, pathlib
from medaug.storage.temporary import temporary_folder
with temporary_folder("x-", pathlib.Path(sys.argv[1])) as folder:
    (folder / "deep").mkdir()
    (folder / "deep" / "file").touch()
    print(folder, flush=True)
    sys.stdin.read()
"""


def holder(parent: Path) -> tuple[subprocess.Popen[str], Path]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process: subprocess.Popen[str]
    process = subprocess.Popen([sys.executable, "-c", HOLD, parent], **pipes)  # type: ignore[call-overload]
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_it_is_private_and_gone_at_the_end(tmp_path: Path) -> None:
    with temporary_folder("x-", tmp_path) as folder:
        assert folder.parent == tmp_path
        assert folder.name.startswith("x-")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    with pytest.raises(KeyError), temporary_folder("x-", tmp_path):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_only_what_the_dead_have_left_is_removed(tmp_path: Path) -> None:
    alive, held = holder(tmp_path)
    killed, left = holder(tmp_path)
    killed.kill()
    killed.wait()
    with temporary_folder("x-", tmp_path) as ours:
        assert held.is_dir()
        assert ours.is_dir()
        assert not left.exists()
        with temporary_folder("x-", tmp_path):  # of the same process
            assert ours.is_dir()
    alive.communicate(timeout=60)
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_known_to_be_left_behind_stays(tmp_path: Path) -> None:
    (tmp_path / "x-plain").mkdir()  # of something else: nothing says that anybody held it
    (tmp_path / "x-file").touch()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / IN_USE).touch()
    (tmp_path / "x-link").symlink_to(elsewhere)
    (tmp_path / "x-lock").mkdir()
    (tmp_path / "x-lock" / IN_USE).symlink_to(elsewhere / IN_USE)
    remove_dead("x-", tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"x-plain", "x-file", "x-link", "x-lock", "elsewhere"}
    assert (elsewhere / IN_USE).exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a folder away needs root")
def test_another_accounts_folder_stays(tmp_path: Path) -> None:
    theirs = tmp_path / "x-theirs"
    theirs.mkdir()
    (theirs / IN_USE).touch()
    os.chown(theirs, 65534, 65534)
    remove_dead("x-", tmp_path)
    assert theirs.exists()


def test_it_may_be_left_in_another_thread(tmp_path: Path) -> None:
    folder = temporary_folder("x-", tmp_path)
    folder.__enter__()
    leaving = threading.Thread(target=folder.__exit__, args=(None, None, None))
    leaving.start()
    leaving.join()
    assert list(tmp_path.iterdir()) == []


def test_every_new_folder_is_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        private_folder(tmp_path / "a/b/c")
        private_folder(tmp_path / "a/b/c")
    finally:
        os.umask(before)
    for path in ("a", "a/b", "a/b/c"):
        assert stat.S_IMODE((tmp_path / path).stat().st_mode) == 0o700
