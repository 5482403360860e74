"""A store or model that is gone is made again where a trial still has to read it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from medaug.ownership.seals import check_run
from medaug.plan.trials import plan_study
from medaug.results.leaderboard import leaderboard_of
from medaug.results.records import read_trials
from medaug.storage.artifacts import Artifacts
from medaug.storage.results import GenerateResult
from medaug.verify import verify
from medaug.waves import to_make_again
from tests.audit.small_runs import SLICES
from tests.storage.sealed_runs import go_on, sealed_run, site_key, small_study

torch.set_num_threads(1)


def scores(folder: Path) -> list[dict[str, Any]]:
    rows = leaderboard_of(folder).to_json()["rows"]
    return [{k: v for k, v in row.items() if k != "device_hours"} for row in rows]


def test_it_is_made_again_where_somebody_reads_it(tmp_path: Path) -> None:
    study = small_study(tmp_path / "runs")
    plan, artifacts = plan_study(study, SLICES), Artifacts(study.storage)
    with site_key(tmp_path / "site.key"):
        folder = sealed_run(study)
        whole = scores(folder)
        made = next(t for t in read_trials(folder) if isinstance(t.result, GenerateResult))
        assert isinstance(made.result, GenerateResult)
        rows = artifacts.store_path(made.result.output)
        (reader,) = (t for t in read_trials(folder) if made.result.output in t.config.inputs)
        before = {path: path.read_bytes() for path in rows.iterdir()}
        assert to_make_again(plan, folder, artifacts) == set()
        shutil.rmtree(rows)
        assert to_make_again(plan, folder, artifacts) == set(), "nobody has to read it"
        shutil.rmtree(reader.folder)
        assert to_make_again(plan, folder, artifacts) == {made.config.key}
        go_on(study)
        assert {path: path.read_bytes() for path in rows.iterdir()} == before
        assert scores(folder) == whole
        assert check_run(folder).remarks(folder.name) == []
        assert all(finding.whole for finding in verify(folder))
