"""What stands in a file's place is damage with a name; nothing waits for it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from medaug.errors import IntegrityError
from medaug.storage.files import sha256_of
from medaug.storage.json_files import read_json
from medaug.storage.reading import read_first_line, read_regular


def linked(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, linked("x"), linked("/dev/zero")])
def test_what_is_no_file_is_damage(make: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "x"
    make(path)
    for read in (read_regular, read_first_line, read_json):
        with pytest.raises(IntegrityError, match=f"{path}: is no file"):
            read(path)
    if not path.is_symlink():
        with pytest.raises(IntegrityError, match=f"{path}: is no file"):
            sha256_of(path)


def test_what_is_not_there_is_nothing(tmp_path: Path) -> None:
    assert read_regular(tmp_path / "x") is None
    assert read_json(tmp_path / "no" / "x") is None


@pytest.mark.parametrize("content", [b"", b"[]", b"[" * 100_000, b"\xff\xfe", b"1", b'{"a": 1'])
def test_what_is_no_object_is_damage(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(IntegrityError, match=f"{tmp_path / 'x'}: is not "):
        read_json(tmp_path / "x")
