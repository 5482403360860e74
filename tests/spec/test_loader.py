"""Section D of the bad-input list: every mistake in a study file is one line that names it."""

from __future__ import annotations

from pathlib import Path

import pytest

from medaug.errors import UserError
from medaug.spec import ArmSpec, StudySpec, load_study

ARMS = {"none": ArmSpec, "duplicate": ArmSpec}
GOOD = "name: x\narms: {none: {}}\n"


def load(tmp_path: Path, text: str | bytes, *overrides: str) -> StudySpec:
    path = tmp_path / "study.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_study(path, ARMS, overrides)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), ("1.0e-4", 1e-4), (".5", 0.5), ("2", 2.0), ("1E-3", 1e-3)],
)
def test_numbers_are_what_json_calls_numbers(tmp_path: Path, text: str, value: float) -> None:
    study = load(tmp_path, GOOD + f"classifier: {{lr: {text}}}\n")
    assert study.classifier.lr == value
    assert isinstance(study.classifier.lr, float)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("classifier:\n  epocs: 3\n", "study.yaml:4: classifier.epocs: unknown key; did you mean 'epochs'?"),
        ("classifier: {epochs: 3}\nclassifier: {epochs: 4}\n", "study.yaml:4: classifier was already given on line 3"),
        ("classifier: {lr: abc}\n", "classifier.lr: should be a valid number"),
        ("classifier: {lr: -1}\n", "greater than 0, got -1"),
        ("classifier: {lr: 0}\n", "greater than 0, got 0"),
        ("classifier: {lr: .nan}\n", "finite number"),
        ("classifier: {lr: .inf}\n", "finite number"),
        ("classifier: {batch_size: 0}\n", "greater than or equal to 1, got 0"),
        ("classifier: {epochs: 0}\n", "greater than or equal to 1, got 0"),
        ("classifier: {epochs: 012}\n", "valid integer"),
        ("classifier: {epochs: 1:30}\n", "valid integer"),
        ("classifier: {epochs: 1_000}\n", "valid integer"),
        ("classifier: {epochs: true}\n", "valid integer, got True"),
        ("classifier: {balanced_sampler: no}\n", "valid boolean"),
        ("classifier: {balanced_sampler: true, weighting: logit_adjust}\n", "balance twice: take one"),
        ("classifier: {early_stop: 3}\n", "classifier: early_stop waits for a better epoch: set final to best_epoch"),
        ("classifier: {kind: probe, epochs: 3}\n", "study.yaml:3: classifier.epochs: unknown key; choose from c_grid, components, kind, pool, refit, threshold, weighting"),
        ("classifier: {kind: probe, component: 3}\n", "classifier.component: unknown key; did you mean 'components'?"),
        ("classifier: {kind: probe, c_grid: []}\n", "classifier.c_grid: is empty"),
        ("classifier: {components: 3}\n", "classifier.components: unknown key"),
        ("classifier: {kind: class_mean, weighting: class_weights}\n", "classifier.weighting: should be 'none', got 'class_weights'"),
        ("classifier: 3\n", "classifier: should be a section"),
        ("sweep: {n_synthetic: []}\n", "is empty: 0 trials"),
        ("sweep: {n_synthetic: [-3]}\n", "greater than or equal to 1"),
        ("sweep: {grid: {acgan.ngf: []}}\n", "axis acgan.ngf is empty: 0 trials"),
        ("split: {folds: 1}\n", "greater than or equal to 2"),
        ("protocol: onest\n", "unknown value 'onest'; did you mean 'honest'?"),
        ("protocol: x\n", "'honest' or 'as_published', got 'x'"),
        ("split: {val_fraction: 0}\n", "split: val_fraction should be greater than 0"),
        ("split: {unit: image}\n", "split: unit belongs to scheme published"),
        ("split: {scheme: published}\n", "as_published and split.scheme published belong together"),
        ("protocol: as_published\n", "as_published and split.scheme published belong together"),
        ("protocol: as_published\nsplit: {scheme: published, folds: 5}\n", "set folds to 1"),
        ("protocol: as_published\nsplit: {scheme: published, test_fraction: 0.2}\n", "set test_fraction to 0"),
        ("resources: {ranks: 2, gpus_per_rank: 0.5}\n", "NCCL refuses two ranks on one GPU"),
        ("resources: {gpus_per_rank: 1.5}\n", "a rank computes on one GPU; set it to 1"),
        ("x: !!python/object/apply:os.system [ls]\n", "python/object/apply:os.system is not allowed"),
        ("a: &a [1]\nb: *a\n", "aliases are not allowed"),
        ("classifier:\n\tepochs: 3\n", "tab"),
        ("---\nname: y\n", "2 documents"),
        ("mlflow_password: hunter2\n", "looks like a secret"),
        ("tracking: {uri: 'http://me:pw@host:5000'}\n", "holds a password"),
        ("storage: ${MEDAUG_NO_SUCH_VARIABLE}/runs\n", "MEDAUG_NO_SUCH_VARIABLE} is not set"),
        ("deep: " + "[" * 2000 + "]" * 2000 + "\n", "levels"),
        ("many: [" + "1," * 20_000 + "]\n", "nodes"),
    ],
)  # fmt: skip
def test_mistakes_are_named(tmp_path: Path, extra: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load(tmp_path, GOOD + extra)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "is empty"),
        (b"- a\n- b\n", "is not a mapping"),
        (b"name: \xff\xfe\n", "UTF-8"),
        (b"name: x\narms: {nome: {}}\n", "arms.nome.kind: unknown arm 'nome'; did you mean 'none'?"),
        (b"name: x\narms: {none: 3}\n", "arms.none: wants a mapping"),
        (b"arms: {none: {}}\n", "name: is missing"),
        (b"name: ../x\narms: {none: {}}\n", "study.yaml:1: name"),
        (b"a: 1\n" * 300_000, "larger than"),
    ],
)  # fmt: skip
def test_broken_files_are_named(tmp_path: Path, text: bytes, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load(tmp_path, text)
    assert message in str(caught.value)


def test_the_published_scheme_is_one_cut_whose_scored_patients_choose(tmp_path: Path) -> None:
    text = GOOD + "protocol: as_published\nsplit: {scheme: published, unit: image}\n"
    split = load(tmp_path, text).split
    assert (split.folds, split.val_fraction, split.unit) == (1, 0.0, "image")
    assert load(tmp_path, text, "split.val_fraction=0.2").split.val_fraction == 0.2
    honest = load(tmp_path, GOOD).split
    assert (honest.scheme, honest.folds, honest.val_fraction) == ("grouped_kfold", 5, 0.2)


def test_a_study_can_be_shown_before_its_data_are_known(tmp_path: Path) -> None:
    study = load(tmp_path, GOOD + "data: {layout: brats}\n")
    assert study.data.root is None


def test_synthetic_only_needs_an_arm_that_adds_rows(tmp_path: Path) -> None:
    text = "name: x\narms: {none: {}, duplicate: {real_rows: false}}\n"
    assert not load(tmp_path, text).arms["duplicate"].real_rows
    with pytest.raises(UserError, match=r"arms\.none: .* adds no rows"):
        load(tmp_path, text, "arms.none.real_rows=false")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        load_study(tmp_path / "nope.yaml", ARMS)


def test_set_overrides_one_key_and_leaves_the_rest(tmp_path: Path) -> None:
    text = GOOD + "classifier: {lr: 0.1, epochs: 7}\n"
    study = load(tmp_path, text, "classifier.lr=1e-4", "sweep.seeds=[3, 4]", "data.image_size=64")
    assert study.classifier.lr == 1e-4
    assert study.classifier.epochs == 7
    assert study.sweep.seeds == (3, 4)
    assert study.data.image_size == 64


def test_errors_of_set_name_the_option(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--set classifier\.lr: should be greater than 0"):
        load(tmp_path, GOOD, "classifier.lr=-1")
    with pytest.raises(UserError, match=r"write --set section\.key=value"):
        load(tmp_path, GOOD, "classifier.lr")


def test_signature_ignores_order_and_sees_values(tmp_path: Path) -> None:
    one = load(tmp_path, "name: x\narms: {none: {}}\nclassifier: {lr: 0.1, epochs: 7}\n")
    two = load(tmp_path, "arms: {none: {}}\nclassifier: {epochs: 7, lr: 1e-1}\nname: x\n")
    other = load(tmp_path, "name: x\narms: {none: {}}\nclassifier: {lr: 0.1, epochs: 8}\n")
    assert one.signature() == two.signature() != other.signature()
