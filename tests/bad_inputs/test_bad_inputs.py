"""All 92 rows of the list of bad inputs: each ends in one line, with the exit code that it promises."""

from __future__ import annotations

import re
import resource
from pathlib import Path

import pytest

from medaug.data.privacy import KEY_ENV
from medaug.errors import MedaugError
from tests.bad_inputs.case import Case
from tests.bad_inputs.scans import SCANS
from tests.bad_inputs.studies import NOT_HERE, STUDIES
from tests.bad_inputs.tables import TABLES

CASES = [*SCANS, *TABLES, *STUDIES]
MOST_KB = 300_000
"""No bad file may take more memory than this to be refused, imports included."""


@pytest.fixture(autouse=True)
def _site(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, str(tmp_path_factory.getbasetemp() / "site.key"))


def test_every_row_is_here() -> None:
    assert {case.row for case in CASES} == set(range(1, 93))
    assert len({(case.row, case.name) for case in CASES}) == len(CASES)
    assert {part.row for part in NOT_HERE} <= set(range(1, 93))
    assert all(len(part.why) > 20 for part in NOT_HERE)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.row:02d}-{case.name}")
def test_bad_input(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "Ward7"
    folder.mkdir()
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        told, code = str(case.make(folder, monkeypatch)), 0
    except MedaugError as error:
        told, code = str(error), error.exit_code
    assert code == case.code, told
    assert re.search(case.says, told), told
    assert told.isprintable()
    if case.row <= 65 and code == 2:
        assert ";" in told, "says what is wrong, but not what to do"
    if case.row <= 66:  # patients' files: not a word of where they lie
        assert "Ward7" not in told or "study.yaml" in told  # the user's own file is named as given
        assert "Doe" not in told
    if case.row <= 51:
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < MOST_KB
