"""The package of docs/add-an-arm.md: built, installed beside medaug, and used in a study."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.docs.pages import ROOT, blocks

PAGE = ROOT / "docs/add-an-arm.md"
MOST_LINES = 45

STUDY = """\
name: extended
data: {layout: flat_folder, classes: [dim, bright], image_size: 16}
split: {folds: 2}
arms: {none: {}, duplicate: {}, classical: {}, extrapolate: {strength: 0.3}}
classifier: {kind: mean_max, epochs: 2}
encoder: {kind: histogram, bins: 8}
sweep: {n_synthetic: [8], seeds: [0]}
"""

DRIVER = """\
import json, sys
from pathlib import Path
import torch
from medaug.cli.options import load
from tests.integration.in_process import run_here
spec, scans, storage = map(Path, sys.argv[1:])
board, _, slices = run_here(load(spec, scans, (), storage / "runs", None))
rejects = slices.manifest["extra"]["ingest"]["rejects"]
features = {p.name: json.loads((p / "manifest.json").read_text())["schema"]["shape"]
            for p in (storage / "runs" / "stores").glob("features-*")}
print(json.dumps({"board": board.to_json(), "rejects": rejects, "features": features}))
"""
"""What ``medaug run SPEC --data DIR --storage DIR`` does, without Ray."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's folder as the page says it."""
    root = tmp_path_factory.mktemp("source")
    for block in blocks(PAGE):
        if block.file is not None:
            path = root / block.file
            path.parent.mkdir(exist_ok=True)
            path.write_text(block.text)
    (root / "medaug_mine/__init__.py").write_text("")
    return root


@pytest.fixture(scope="module")
def installed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of installed packages that holds the package alone."""
    return install(source, tmp_path_factory.mktemp("site"))


def install(source: Path, target: Path) -> Path:
    words = ["-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    done = subprocess.run(
        [sys.executable, *words, "--target", str(target), str(source)],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return target


def python(installed: Path, *words: Any) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter that sees the package."""
    return subprocess.run(
        [sys.executable, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "PYTHONPATH": f"{installed}:{ROOT}", "COLUMNS": "200"},
    )


def test_each_is_a_short_file(source: Path) -> None:
    files = [block for block in blocks(PAGE) if block.file and block.language == "python"]
    assert len(files) == 5
    for block in files:
        assert len(block.text.splitlines()) <= MOST_LINES
    assert not [block for block in blocks(PAGE) if block.language == "diff"], "medaug is not edited"


def test_they_keep_the_rules_of_the_house(source: Path) -> None:
    names = [block.file for block in blocks(PAGE) if block.file and block.language == "python"]
    ruff = [sys.executable, "-m", "ruff", "--config", str(ROOT / "pyproject.toml")]
    for command in ("check", "format --check"):
        words = [*ruff[:3], *command.split(), *ruff[3:], *names]
        done = subprocess.run(words, cwd=source, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def write_scans(scans: Path) -> None:
    scans.mkdir()
    for patient in range(16):
        for number in range(2):
            bright = patient % 2
            pixels = np.random.default_rng([patient, number]).normal(90 + 60 * bright, 10, (16, 16))
            name = f"p{patient:02}__{('dim', 'bright')[bright]}__{number}.png"
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(scans / name)
    (scans / "unclear.png").write_bytes((scans / name).read_bytes())


def test_a_study_uses_all_four(installed: Path, tmp_path: Path) -> None:
    write_scans(tmp_path / "scans")
    (tmp_path / "study.yaml").write_text(STUDY)
    done = python(installed, "-c", DRIVER, tmp_path / "study.yaml", tmp_path / "scans", tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    rows = [row for row in found["board"]["rows"] if row["arm"] == "extrapolate"]
    (row,) = rows
    assert (row["title"], row["replicates"], row["patients"]) == ("extrapolate +8", 2, 16)
    assert row["synthetic"]
    assert math.isfinite(row["mean"])
    ((_, reason),) = found["rejects"]
    assert reason.startswith("is not named")
    assert [8, 1, 1] in found["features"].values()

    # Without the package the study is refused in a line, and an arm of it is known to be gone.
    gone = python(tmp_path, "-m", "medaug", "run", tmp_path / "study.yaml")
    assert gone.returncode == 2
    assert "unknown encoder 'histogram'" in gone.stderr
    assert gone.stderr.rstrip().endswith("or install the package that adds it")
    # What the run has found can still be read (it was damage, with the advice to delete it).
    storage = ("--storage", tmp_path / "runs")
    read = python(tmp_path, "-m", "medaug", "leaderboard", "extended", "--json", *storage)
    assert read.returncode == 0, read.stderr
    assert json.loads(read.stdout)["rows"] == found["board"]["rows"]
    resumed = python(tmp_path, "-m", "medaug", "resume", "extended", *storage)
    assert resumed.returncode == 2
    assert "unknown encoder 'histogram'" in resumed.stderr
    code = "from medaug.tracking.generators import is_portable; print(is_portable('extrapolate'))"
    assert python(tmp_path, "-c", code).stdout.strip() == "False"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("strength: 0.3}|strenght: 0.3}", "did you mean 'strength'"),
        ("kind: mean_max|kind: mean_mux", "did you mean 'mean_max'"),
        ("kind: histogram|kind: histogrom", "did you mean 'histogram'"),
        ("layout: flat_folder|layout: flat_foldr", "did you mean 'flat_folder'"),
        ("extrapolate: {|extrapolat: {", "did you mean 'extrapolate'"),
    ],
)
def test_a_mistake_in_a_study_is_told_without_torch(
    installed: Path, tmp_path: Path, change: str, said: str
) -> None:
    before, after = change.split("|")
    assert before in STUDY
    spec = tmp_path / "study.yaml"
    spec.write_text(STUDY.replace(before, after))
    code = (
        "import sys\nfrom medaug.cli import main\n"
        f"try: main(['run', {str(spec)!r}, '--data', {str(tmp_path)!r}])\n"
        "except SystemExit as end: assert end.code == 2, end.code\n"
        "print(*(name for name in ('torch', 'ray', 'pyarrow') if name in sys.modules))"
    )
    ran = python(installed, "-c", code)
    assert said in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
    assert ran.stdout.strip() == ""


def test_help_asks_no_package(installed: Path) -> None:
    code = (
        "import sys\nfrom medaug.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print('LOADED', *(n for n in ('torch', 'medaug.spec.plugins', 'medaug_mine') "
        "if n in sys.modules))"
    )
    ran = python(installed, "-c", code)
    assert ran.stdout.splitlines()[-1].strip() == "LOADED"


BROKEN = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"
[project]
name = "medaug-broken"
version = "1"
[project.entry-points."medaug.arms"]
falls = "medaug_broken:Gone"
wrong = "medaug_broken:WRONG"
extrapolate = "medaug_broken:WRONG"
[tool.setuptools]
py-modules = ["medaug_broken"]
"""


@pytest.fixture(scope="module")
def broken(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same beside a package whose arms cannot be used, one under the other's name."""
    source = tmp_path_factory.mktemp("broken")
    (source / "pyproject.toml").write_text(BROKEN)
    (source / "medaug_broken.py").write_text("WRONG = 3\n")
    return install(source, tmp_path_factory.mktemp("broken-site"))


@pytest.mark.parametrize(
    ("arm", "said"),
    [
        ("falls", "'falls' of package medaug-broken (medaug_broken:Gone) cannot be used (Attrib"),
        ("wrong", "'wrong' of package medaug-broken (medaug_broken:WRONG) cannot be used (TypeErr"),
        ("extrapolate", "medaug-broken and medaug-mine both add 'extrapolate'; uninstall one"),
    ],
)
def test_a_package_that_cannot_be_used_is_named(
    installed: Path, broken: Path, tmp_path: Path, arm: str, said: str
) -> None:
    code = (
        "import sys\nfrom medaug.arms import ARMS\nfrom medaug.errors import UserError\n"
        "try: ARMS[sys.argv[1]]\nexcept UserError as error: print(error)\n"
        "assert ARMS['gaussian'] and 'acgan' in ARMS"
    )
    path = f"{installed}:{broken}"
    ran = python(Path(path), "-c", code, arm)
    assert ran.returncode == 0, ran.stderr
    assert said in ran.stdout
