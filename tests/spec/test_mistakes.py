"""Typical mistakes in a study, through the command line: one line with file, line, key and fix."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from medaug.cli import main

STUDY = """\
name: mine
data: {layout: phantom, image_size: 64}
split: {folds: 3}
segmenter:
  base: 8
  epochs: 3
features: {tap: conv5}
arms:
  none: {}
  acgan:
    epochs: 20
classifier:
  epochs: 8
sweep:
  n_synthetic: [100, 300]
  grid: {acgan.ngf: [16, 32]}
  seeds: [0, 1, 2]
"""


def said(folder: Path, text: str, *options: str) -> str:
    """What ``medaug show`` says of a study with a mistake, after ``error: `` and the folder."""
    path = folder / "s.yaml"
    path.write_text(text)
    ended = CliRunner().invoke(main, ["show", str(path), *options])
    assert ended.exit_code == 2
    assert ended.output.count("\n") == 1
    return ended.output.strip().removeprefix("error: ").replace(f"{folder}/", "")


def test_the_study_is_right_without_a_mistake(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(STUDY)
    assert CliRunner().invoke(main, ["show", str(path)]).exit_code == 0


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("  epochs: 8", "  epocs: 8", "s.yaml:13: classifier.epocs: unknown key; did you mean 'epochs'?"),
        ("classifier:", "clasifier:", "s.yaml:12: clasifier: unknown key; did you mean 'classifier'?"),
        ("  epochs: 8", "  epochs:", "s.yaml:13: classifier.epochs: should be a valid integer, got nothing"),
        ("    epochs: 20", "    epochs: twenty", "s.yaml:11: arms.acgan.epochs: should be a valid integer, got 'twenty'"),
        ("    epochs: 20", "    preset: stabel", "s.yaml:11: arms.acgan.preset: unknown value 'stabel'; did you mean 'stable'?"),
        ("    epochs: 20", "    lr: 0.1", "s.yaml:11: arms.acgan.lr: unknown key; did you mean 'lr_g'?"),
        ("  acgan:\n", "  acgn:\n", "s.yaml:10: arms.acgn.kind: unknown arm 'acgn'; did you mean 'acgan'?"),
        ("acgan.ngf:", "acgn.ngf:", "s.yaml:16: sweep.grid.acgn.ngf: an axis is <arm>.<key>, and 'acgn' is no arm of this study; did you mean 'acgan'?"),
        ("  none: {}", "  nune: {}", "s.yaml:9: arms.nune.kind: unknown arm 'nune'; did you mean 'none'?"),
        ("  none: {}\n  acgan:\n    epochs: 20\n", "", "s.yaml:8: arms: should be a section; write 'key: value' lines below it, got nothing"),
        ("folds: 3", "scheme: kfold", "s.yaml:3: split.scheme: unknown value 'kfold'; did you mean 'grouped_kfold'?"),
        ("{folds: 3}", "3", "s.yaml:3: split: should be a section; write 'key: value' lines below it, got 3"),
        ("{folds: 3}", "{folds: 1}", "s.yaml:3: split: folds should be greater than or equal to 2, got 1"),
        ("conv5", "conv6", "s.yaml:7: features.tap: unknown value 'conv6'; did you mean 'conv5'?"),
        ("layout: phantom", "layout: bratz", "s.yaml:2: data.layout: unknown value 'bratz'; did you mean 'brats'?"),
        ("  epochs: 8", "  kind: resnet51", "s.yaml:13: classifier.kind: unknown value 'resnet51'; did you mean 'resnet50'?"),
        ("acgan.ngf:", "acgan.nfg:", "s.yaml:16: sweep.grid.acgan.nfg: arm acgan (acgan) has no key 'nfg'; did you mean 'ngf'?"),
        ("[16, 32]", "[16, -2]", "s.yaml:16: sweep.grid.acgan.ngf.1: should be greater than or equal to 1, got -2"),
        ("  seeds", "  tie: [[acgan.ngf, acgan.ndf]]\n  seeds", "s.yaml:17: sweep.tie.0: 'acgan.ndf' is no axis of sweep.grid; did you mean 'acgan.ngf'?"),
        ("{acgan.ngf: [16, 32]}", "{acgan.ngf: [16, 32], acgan.ndf: [16]}\n  tie: [[acgan.ngf, acgan.ndf]]", "s.yaml:17: sweep.tie.0: tied axes want equally many values, but acgan.ngf has 2, acgan.ndf has 1"),
        ("  seeds", "  space: {acgan.lr_g: {log: [1, 2]}}\n  seeds", "s.yaml:17: sweep.space.acgan.lr_g: write one of {choice: [...]}"),
        ("  seeds", "  max_trials: 1\n  seeds", "s.yaml:16: sweep.grid: 2 points of arm acgan, more than sweep.max_trials = 1"),
        ("  seeds", "  asha: {metric: val/ffd}\n  seeds", "s.yaml:17: sweep.asha.metric: no generator reports 'val/ffd' that others' can be compared with; did you mean 'val/fd'?"),
        ("  seeds", "  asha: {metirc: val/fd}\n  seeds", "s.yaml:17: sweep.asha.metirc: unknown key; did you mean 'metric'?"),
        ("  seeds", "  asha: {mode: max}\n  seeds", "s.yaml:17: sweep.asha.mode: max would keep the worst generators; the best val/fd is its min"),
        ("  seeds", "  asha: {reduction_factor: 1}\n  seeds", "s.yaml:17: sweep.asha.reduction_factor: should be greater than or equal to 2, got 1"),
        ("  seeds", "  asha:\n    grace_period: 20\n  seeds", "s.yaml:18: sweep.asha.grace_period: 20 epochs of grace stop no generator before its end: acgan trains 20 epochs and is measured every 5; lower grace_period or arms.acgan.eval_every"),
        ("  seeds", "  asha: {grace_period: 16}\n  seeds", "s.yaml:17: sweep.asha.grace_period: 16 epochs of grace stop no generator before its end: acgan"),
        ("  seeds", "  asha: {}\n  median: {}\n  seeds", "s.yaml:17: sweep: asha and median both end trials early: take one of them"),
        ("  seeds", "  median: {metric: val/ffd}\n  seeds", "s.yaml:17: sweep.median.metric: no generator reports 'val/ffd'"),
        ("  seeds", "  hyperband: {brackets: 1}\n  seeds", "s.yaml:17: sweep.hyperband.brackets: should be greater than or equal to 2, got 1"),
        ("  acgan:\n    epochs: 20\nclassifier:\n  epochs: 8\nsweep:\n  n_synthetic: [100, 300]\n  grid: {acgan.ngf: [16, 32]}\n", "sweep:\n  asha: {}\n", "s.yaml:11: sweep.asha: no arm of this study is trained in epochs"),
        ("[0, 1, 2]", "[0, one, 2]", "s.yaml:17: sweep.seeds.1: should be a valid integer, got 'one'"),
        ("[0, 1, 2]", "[]", "s.yaml:17: sweep.seeds: is empty: 0 trials"),
        ("features: {tap: conv5}\n", "", "s.yaml:4: features and segmenter belong together: give both or neither"),
        ("name: mine", "name: my study", "s.yaml:1: name: should be 1 to 64 of A-Z a-z 0-9 . _ -, with a letter or digit first, got 'my study'"),
        ("  base: 8", "  base 8", "s.yaml:6: mapping values are not allowed here; is it indented like its neighbours, with a ':' in the line above?"),
        ("  epochs: 3", "   epochs: 3", "s.yaml:6: mapping values are not allowed here; is it indented like its neighbours"),
        ("[16, 32]", "[16, 32", "s.yaml:16: "),
        ("  epochs: 8", "  epochs: 8\n  epochs: 9", "s.yaml:14: classifier.epochs was already given on line 13; keep one of the two"),
        ("  base: 8", "  pretrain: {phantom: {patiens: 3}}", "s.yaml:5: segmenter.pretrain.phantom.patiens: unknown key; did you mean 'patients'?"),
    ],
)  # fmt: skip
def test_mistakes_in_the_file(tmp_path: Path, right: str, wrong: str, message: str) -> None:
    assert STUDY.count(right) == 1
    assert said(tmp_path, STUDY.replace(right, wrong)).startswith(message)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("classifier.epocs=3", "--set classifier.epocs: unknown key; did you mean 'epochs'?"),
        ("clasifier.epochs=3", "--set clasifier.epochs: clasifier: unknown key; did you mean 'classifier'?"),
        ("classifier.epochs", "--set classifier.epochs: write --set section.key=value"),
        ("=3", "--set =3: write --set section.key=value"),
        ("classifier.epochs.x=3", "--set classifier.epochs.x: epochs is a value, not a section"),
        ("arms.acgan.epochs=x", "--set arms.acgan.epochs: should be a valid integer, got 'x'"),
        ("arms.acgn.epochs=3", "--set arms.acgn.epochs: arms.acgn.kind: unknown arm 'acgn'; did you mean 'acgan'?"),
        ("split.folds=[", "--set split.folds=[: is no value; quote text, close brackets: '[1, 2]'"),
        ("split.folds=1", "--set split.folds: split: folds should be greater than or equal to 2, got 1"),
        ("sweep.grid.acgan.nfg=[1]", "--set sweep.grid.acgan.nfg: arm acgan (acgan) has no key 'nfg'; did you mean 'ngf'?"),
        ("sweep.grid.acgan.ngf=[1, no]", "--set sweep.grid.acgan.ngf: sweep.grid.acgan.ngf.1: should be a valid integer, got 'no'"),
        ("sweep.seeds=[a]", "--set sweep.seeds: sweep.seeds.0: should be a valid integer, got 'a'"),
    ],
)  # fmt: skip
def test_mistakes_in_options(tmp_path: Path, option: str, message: str) -> None:
    assert said(tmp_path, STUDY, "--set", option) == message


def test_scored_patients_stop_no_classifier(tmp_path: Path) -> None:
    asha = "median: {classifiers: true, grace_period: 2}"
    text = STUDY.replace("grid: {acgan.ngf: [16, 32]}", asha)
    published = "{scheme: published}\nprotocol: as_published"
    told = said(tmp_path, text.replace("{folds: 3}", published))
    assert "the scored ones would end classifiers" in told
    (tmp_path / "s.yaml").write_text(text)
    assert CliRunner().invoke(main, ["show", str(tmp_path / "s.yaml")]).exit_code == 0


@pytest.mark.parametrize(
    "asha",
    [
        "asha: {grace_period: 15}",
        "asha: {grace_period: 20}\n  grid: {acgan.epochs: [10, 40]}",
        "asha: {grace_period: 20}\n  space: {acgan.epochs: {randint: [10, 40]}}\n  search: random",
    ],
)
def test_halving_that_can_stop_something(tmp_path: Path, asha: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(STUDY.replace("grid: {acgan.ngf: [16, 32]}", asha))
    ended = CliRunner().invoke(main, ["show", str(path)])
    assert ended.exit_code == 0, ended.output


def test_nothing_heavy_is_loaded_before_a_mistake_is_told(tmp_path: Path) -> None:
    """Seconds that the person need not wait for, and no device or cluster that anybody takes."""
    path = tmp_path / "s.yaml"
    path.write_text(STUDY.replace("  epochs: 8", "  epocs: 8"))
    code = (
        "import sys; from medaug.cli import main;"
        f"code = main(['run', {str(path)!r}], standalone_mode=False);"
        "print(sorted({'torch', 'ray', 'mlflow', 'scipy', 'numpy'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "did you mean 'epochs'?" in ended.stderr
    assert ended.stdout.strip() == "[]"
