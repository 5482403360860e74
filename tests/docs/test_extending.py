"""The new arm, classifier and layout of docs/add-an-arm.md: one file and one line each."""

from __future__ import annotations

import difflib
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.docs.pages import ROOT, blocks

PAGE = ROOT / "docs/add-an-arm.md"
MOST_LINES = 40

STUDY = """\
name: extended
data: {layout: flat_folder, classes: [dim, bright], image_size: 16}
split: {folds: 2}
arms: {none: {}, duplicate: {}, classical: {}, extrapolate: {strength: 0.3}}
classifier: {kind: mean_max, epochs: 2}
sweep: {n_synthetic: [8], seeds: [0]}
"""

DRIVER = """\
import json, sys
from pathlib import Path
import medaug, torch
from medaug.cli.options import load
from tests.integration.in_process import run_here
torch.set_num_threads(1)
spec, scans, storage = map(Path, sys.argv[1:])
board, _, slices = run_here(load(spec, scans, (), storage / "runs", None))
rejects = slices.manifest["extra"]["ingest"]["rejects"]
print(json.dumps({"medaug": medaug.__file__, "board": board.to_json(), "rejects": rejects}))
"""
"""What ``medaug run SPEC --data DIR --storage DIR`` does, without Ray."""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with medaug as the page leaves it."""
    root = tmp_path_factory.mktemp("extended")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "medaug", root / "medaug", ignore=ignored)
    for block in blocks(PAGE):
        if block.file is None:
            continue
        path = root / block.file
        if block.language == "python":
            assert not path.exists()
            path.write_text(block.text)
        else:
            path.write_text(applied(path.read_text(), block.text))
    return root


def applied(text: str, diff: str) -> str:
    """``text`` with the lines marked ``+`` put behind the unmarked line before them."""
    lines, at = text.splitlines(), -1
    for line in diff.splitlines():
        if line.startswith("+"):
            at += 1
            lines.insert(at, line[1:])
        else:
            at = lines.index(line[1:], at + 1)
    return "\n".join(lines) + "\n"


def test_each_is_one_short_file_and_one_line(copy: Path) -> None:
    files = [block for block in blocks(PAGE) if block.file and block.language == "python"]
    diffs = [block for block in blocks(PAGE) if block.file and block.language == "diff"]
    assert len(files) == 4  # an arm's keys have one of their own
    assert len(diffs) == 5
    for block in files:
        assert len(block.text.splitlines()) <= MOST_LINES
    changed = {
        str(path.relative_to(copy)): [
            line[1:]
            for line in difflib.unified_diff(
                (ROOT / path.relative_to(copy)).read_text().splitlines(),
                path.read_text().splitlines(),
                n=0,
            )
            if line.startswith(("+", "-")) and line[:3] not in ("+++", "---")
        ]
        for path in copy.rglob("*.py")
        if (ROOT / path.relative_to(copy)).exists()
        and path.read_text() != (ROOT / path.relative_to(copy)).read_text()
    }
    assert set(changed) == {block.file for block in diffs}
    for lines in changed.values():
        *imported, entry = lines
        assert len(imported) <= 1
        assert all(line.startswith("from medaug.") for line in imported)
        assert entry.startswith('    "')


def test_they_keep_the_rules_of_the_house(copy: Path) -> None:
    names = [block.file for block in blocks(PAGE) if block.file and block.language == "python"]
    ruff = [sys.executable, "-m", "ruff", "--config", str(ROOT / "pyproject.toml")]
    for command in ("check", "format --check"):
        words = [*ruff[:3], *command.split(), *ruff[3:], *names]
        done = subprocess.run(words, cwd=copy, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_study_uses_all_three(copy: Path, tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    for patient in range(16):
        for number in range(2):
            bright = patient % 2
            pixels = np.random.default_rng([patient, number]).normal(90 + 60 * bright, 10, (16, 16))
            name = f"p{patient:02}__{('dim', 'bright')[bright]}__{number}.png"
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(scans / name)
    (scans / "unclear.png").write_bytes((scans / name).read_bytes())
    (tmp_path / "study.yaml").write_text(STUDY)
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, tmp_path / "study.yaml", scans, tmp_path],
        cwd=copy,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{copy}:{ROOT}"},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert Path(found["medaug"]).is_relative_to(copy)
    (row,) = (row for row in found["board"]["rows"] if row["arm"] == "extrapolate")
    assert (row["title"], row["replicates"], row["patients"]) == ("extrapolate +8", 2, 16)
    assert row["synthetic"]
    assert math.isfinite(row["mean"])
    ((_, reason),) = found["rejects"]
    assert reason.startswith("is not named")
