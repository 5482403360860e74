"""The Python API, as a notebook uses it."""

from __future__ import annotations

import inspect
import math
import shutil
import subprocess
import sys
import typing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import medaug
from medaug.errors import IntegrityError, UserError
from medaug.export import export
from medaug.results.leaderboard import leaderboard_of
from medaug.store import Store
from tests.audit.small_runs import SLICES, run, study
from tests.tracking.made_runs import made_scores
from tests.tracking.made_runs import study as made_study


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs")
    arms = {"none": {}, "gaussian": {"components": 4}, "mixup": {}}
    run(study(path, arms=arms, sweep={"n_synthetic": [24], "seeds": [0]}))
    return path


def test_importing_medaug_loads_nothing() -> None:
    code = "import sys, medaug; print(sorted(m for m in sys.modules if m.startswith('medaug')))"
    heavy = "print([m for m in ('torch', 'numpy', 'pandas', 'pydantic') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; {heavy}"], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[:2] == ["['medaug']", "[]"]


def test_every_function_is_typed_and_described() -> None:
    for name in medaug.__all__:
        function = getattr(medaug, name)
        signature = inspect.signature(function)
        assert signature.return_annotation is not inspect.Signature.empty
        assert all(
            p.annotation is not inspect.Parameter.empty for p in signature.parameters.values()
        )
        assert "Raises:" in typing.cast(str, function.__doc__)
    assert (Path(medaug.__file__).parent / "py.typed").exists()


def test_open_store(storage: Path) -> None:
    store = medaug.open_store(str(storage / "stores" / SLICES))
    assert isinstance(store, Store)
    assert store.read(slice(0, 8)).x.shape == (8, 1, 32, 32)
    with pytest.raises(UserError, match="no finished store"):
        medaug.open_store(storage / "stores" / "slices-none")


def test_a_generator_by_run_by_name_and_by_folder(storage: Path, tmp_path: Path) -> None:
    generator = medaug.load_generator("small", storage)
    assert repr(generator) == "<Generator gaussian: rows (1, 32, 32) of LGG, HGG>"
    rows = generator.sample(7, "HGG")
    assert rows.shape == (7, *generator.shape)
    assert rows.dtype == np.float32
    assert np.array_equal(generator.sample(3, 1), rows[:3])
    assert not np.array_equal(generator.sample(7, "LGG"), rows)
    assert not np.array_equal(generator.sample(7, "HGG", seed=1), rows)

    copied = export(storage / "small", tmp_path / "out", allow_near_copies=True)
    names = [path.name for path in (storage / "models").glob("generator-*")]
    named = [n for n in names if (storage / "models" / n / "weights.safetensors").exists()]
    again = [medaug.load_generator(copied), medaug.load_generator(str(copied), "nowhere")]
    again += [medaug.load_generator(name, storage) for name in named]
    assert any(np.array_equal(each.sample(7, "HGG"), rows) for each in again[2:])
    assert all(np.array_equal(each.sample(7, "HGG"), rows) for each in again[:2])

    with pytest.raises(UserError, match="label: 'GBM'; use one of LGG, HGG"):
        generator.sample(1, "GBM")
    with pytest.raises(UserError, match="use 0 to 1"):
        generator.sample(1, 2)


def test_what_is_no_generator_is_said(storage: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="large: no such run; have small"):
        medaug.load_generator("large", storage)
    alone = set((storage / "models").glob("generator-*"))
    alone = {path for path in alone if not (path / "weights.safetensors").exists()}
    with pytest.raises(UserError, match="mixup makes rows beside its training data only"):
        medaug.load_generator(alone.pop().name, storage)
    copied = export(storage / "small", tmp_path / "out", allow_near_copies=True)
    (copied / "config.json").write_text("{}")
    with pytest.raises(IntegrityError, match=r"has 2 of \d+ bytes; export the generator again"):
        medaug.load_generator(copied)
    shutil.copytree(storage, tmp_path / "runs")
    for path in (tmp_path / "runs" / "small" / "trials").glob("*/result.json"):
        path.unlink()
    with pytest.raises(UserError, match="no arm of this run has left a generator"):
        medaug.load_generator("small", tmp_path / "runs")


def test_leaderboard_as_a_frame(tmp_path: Path) -> None:
    folder = made_scores(
        made_study(tmp_path, sweep={"n_synthetic": [100], "grid": {"acgan.ngf": [16, 32]}})
    )
    frame, board = medaug.leaderboard("made", tmp_path), leaderboard_of(folder)
    assert isinstance(frame, pd.DataFrame)
    assert frame["title"].tolist() == [row.title for row in board.rows]
    assert frame["rank"].tolist() == [row.rank for row in board.rows]
    assert list(frame.columns[:2]) == ["rank", "title"]
    for line, row in zip(frame.to_dict("records"), board.rows, strict=True):
        assert line["mean"] == row.mean
        assert line["flags"] == "; ".join(row.flags)
        assert line["scores.auroc"] == row.scores["auroc"]
        ngf = row.point.get("ngf", math.nan)
        assert line["point.ngf"] == ngf or (math.isnan(line["point.ngf"]) and math.isnan(ngf))
    numbers = frame[["mean", "low", "high", "gain", "gain_low", "gain_high"]]
    assert set(numbers.dtypes) == {np.dtype(float)}
    assert frame["rank"].dtype == "Int64"


def test_a_run_that_has_just_begun_is_an_empty_frame(tmp_path: Path) -> None:
    folder = made_scores(made_study(tmp_path))
    shutil.rmtree(folder / "trials")
    frame = medaug.leaderboard("made", tmp_path)
    assert frame.empty
    assert "title" in frame
