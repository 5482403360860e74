"""A run's journal: lines that follow each other, each under its seal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medaug.errors import IntegrityError
from medaug.storage.journal import JOURNAL, Journal, check_files, read_journal
from medaug.storage.manifest import sealed

KEY, OTHER = b"k" * 32, b"o" * 32


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    for trial in ("aaa", "bbb"):
        (folder / "trials" / trial).mkdir(parents=True)
        (folder / "trials" / trial / "result.json").write_text(f'{{"of": "{trial}"}}')
    return folder


def written(run: Path, key: bytes | None = KEY) -> Journal:
    journal = Journal(run, key)
    journal.plan(["aaa", "bbb", "ccc"])
    journal.flush()
    for trial in ("aaa", "bbb"):
        journal.ended({trial: "done"})
        journal.seal(run / "trials" / trial / "result.json")
        journal.flush()
    return journal


def lines(run: Path) -> list[bytes]:
    return (run / JOURNAL).read_bytes().splitlines(keepends=True)


def test_it_says_what_was_planned_how_it_ended_and_with_which_files(run: Path) -> None:
    written(run)
    record = read_journal(run, KEY)
    assert record is not None
    assert record.planned == {"aaa", "bbb", "ccc"}
    assert record.ended == {"aaa": "done", "bbb": "done"}
    assert (record.lines, record.keyed, record.foreign) == (3, 3, 0)
    assert check_files(run, record) == []


def test_many_trials_are_one_line(run: Path) -> None:
    journal = Journal(run)
    for number in range(5000):
        journal.ended({f"{number:012x}": "done"})
    journal.flush()
    assert len(lines(run)) == 1
    journal.flush()
    assert len(lines(run)) == 1, "nothing new, nothing written"


@pytest.mark.parametrize("key", [None, KEY])
def test_no_line_can_be_changed_left_out_moved_or_put_in(run: Path, key: bytes | None) -> None:
    written(run, key)
    good = lines(run)
    body = json.loads(good[1])
    body["ended"] = {"aaa": "failed"}
    del body["self"]
    forged = sealed(body) + b"\n"
    for bad in (
        [good[0], good[1].replace(b"done", b"fail"), good[2]],
        [good[0], good[2]],
        [good[1], good[2]],
        [good[0], good[2], good[1]],
        [good[0], good[0], good[1], good[2]],
        [good[0], forged, good[2]],
        [b"[]\n"],
        [good[0], b"\x00" * 200 + b"\n"],
    ):
        (run / JOURNAL).write_bytes(b"".join(bad))
        with pytest.raises(IntegrityError, match=r"journal\.jsonl line \d: .*; restore it"):
            read_journal(run, key)


def test_without_the_key_nobody_makes_a_line(run: Path) -> None:
    written(run)
    journal = Journal(run, OTHER)
    journal.ended({"aaa": "failed"})
    journal.flush()
    record = read_journal(run, KEY)
    assert record is not None
    assert (record.keyed, record.foreign) == (3, 1), "seen, and said to whoever reads"
    good = lines(run)[:3]
    body = json.loads(good[2])
    del body["self"]
    body["files"] = {"trials/bbb/result.json": "0" * 64}
    (run / JOURNAL).write_bytes(b"".join(good[:2]) + sealed(body) + b"\n")
    with pytest.raises(IntegrityError, match="was not written with this site's key"):
        read_journal(run, KEY)


def test_a_torn_end_has_not_happened_and_writing_goes_on(run: Path) -> None:
    written(run)
    whole = (run / JOURNAL).read_bytes()
    last = len(lines(run)[-1])
    for cut in (1, 2, last // 2, last - 1):
        (run / JOURNAL).write_bytes(whole[:-cut])
        record = read_journal(run, KEY)
        assert record is not None
        assert record.lines == 2
    journal = Journal(run, KEY)
    journal.ended({"bbb": "done"})
    journal.flush()
    record = read_journal(run, KEY)
    assert record is not None
    assert (record.lines, record.ended["bbb"]) == (3, "done")


def test_two_writers_of_one_node_follow_each_other(run: Path) -> None:
    first, second = written(run), Journal(run, KEY)
    assert second.record.lines == 3
    first.ended({"ccc": "failed"})
    first.flush()
    second.ended({"ccc": "done"})
    second.flush()
    record = read_journal(run, KEY)
    assert record is not None
    assert (record.lines, record.ended["ccc"]) == (5, "done")


def test_a_changed_file_is_named_with_what_resume_does(run: Path) -> None:
    journal = written(run)
    path = run / "trials" / "aaa" / "result.json"
    path.write_text('{"of": "aab"}')
    record = read_journal(run, KEY)
    assert record is not None
    with pytest.raises(IntegrityError, match=rf"{path}: is not what .* `medaug resume run`, which"):
        check_files(run, record)
    path.unlink()
    assert check_files(run, record) == ["trials/aaa/result.json"]
    journal.reopen(["aaa"])
    path.write_text("{}")
    record = read_journal(run, KEY)
    assert record is not None
    assert check_files(run, record) == [], "a trial that runs again writes other files"
    assert "aaa" not in record.ended
