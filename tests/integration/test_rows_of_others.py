"""A folder of somebody else's images, made without any of our code, and their generators, from
``medaug run`` to the leaderboard."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from medaug.cli import main
from medaug.errors import TrialsFailed
from medaug.results.records import read_trials
from tests.arms.test_monai_bundle import write_bundle
from tests.extras import needs_monai
from tests.integration.small_study import medaug

pytestmark = [pytest.mark.ray, needs_monai]

STUDY = """\
name: theirs
data: {layout: class_folders, root: scans, classes: [dim, bright], image_size: 32}
split: {folds: 2}
classifier: {kind: probe}
arms:
  theirs: {kind: folder, path: theirs, made_from: {public: nothing but noise}}
  hearsay: {kind: folder, path: "fold/{fold}"}
  bundle: {kind: monai_bundle, path: bundle, made_from: {public: nothing at all}}
  broken: {kind: monai_bundle, path: broken}
sweep: {n_synthetic: [16], seeds: [0, 1, 2]}
resources: {max_concurrent: 1}
"""

MAKER = """\
import sys
from pathlib import Path
import numpy as np
from PIL import Image

def write(folder, n, seed):
    random = np.random.default_rng(seed)
    for number in range(n):
        name, level = (("dim", 90), ("bright", 130))[number % 2]
        place = Path(folder, name)
        place.mkdir(parents=True, exist_ok=True)
        coarse = random.normal(0, 25, (16, 16)).repeat(8, 0).repeat(8, 1)
        x = level + coarse + random.normal(0, 15, (128, 128))
        Image.fromarray(x.clip(0, 255).astype(np.uint8)).save(place / f"p{number:03}.png")

write("scans", 40, 0)
write("theirs", 16, 1)
write("fold/0", 16, 2)
write("fold/1", 20, 3)
"""


def test_rows_of_others_are_judged_from_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    subprocess.run([sys.executable, "-c", MAKER], check=True)
    write_bundle(tmp_path / "bundle", image_size=32)
    write_bundle(tmp_path / "broken", image_size=32, constant=float("nan"))
    (tmp_path / "study.yaml").write_text(STUDY)
    run = medaug("run", "study.yaml", "--storage", "runs", timeout_s=500)
    assert run.returncode == TrialsFailed.exit_code, run.stderr
    reason = "arms.broken.path: its network makes values that are no finite numbers"
    assert f"1 trials failed, first: configuration: {reason}" in run.stderr.replace("\n", " ")
    assert "draw: 2 trials" in run.stderr
    said = CliRunner().invoke(main, ["leaderboard", "theirs", "--storage", "runs", "--json"])
    board = json.loads(said.stdout)
    rows = {row["arm"]: row for row in board["rows"]}
    drawn = [t for t in read_trials(tmp_path / "runs/theirs") if t.config.stage == "draw"]
    assert {(t.config.title, t.status) for t in drawn} == {("bundle", "done"), ("broken", "failed")}
    assert all(t.epochs for t in drawn if t.status == "done")
    assert "broken" not in rows, "nothing of it could be scored"
    for arm in ("theirs", "hearsay", "bundle"):
        assert rows[arm]["synthetic"]
        assert rows[arm]["rank"] is not None, rows[arm]["flags"]
        assert (rows[arm]["replicates"], rows[arm]["expected"]) == (6, 6)
    assert "lineage unknown" in rows["hearsay"]["flags"]
    assert "lineage unknown" not in rows["theirs"]["flags"]
    assert len(json.loads((tmp_path / "runs/theirs/given.json").read_text())) == 4
    report = (tmp_path / "runs/theirs/report.html").read_text()
    assert reason in report

    copied = sorted((tmp_path / "scans/dim").iterdir())[3]
    (tmp_path / "theirs/dim/p000.png").write_bytes(copied.read_bytes())
    again = medaug("run", "study.yaml", "--storage", "others", timeout_s=300)
    assert again.returncode == 2
    assert "arms.theirs.path: 1 of 16 images are copies of patients who are scored" in again.stderr
