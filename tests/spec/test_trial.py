"""Trials and their names."""

from __future__ import annotations

import pytest

from medaug.spec import ClassifyTrial, ExtractTrial, GenerateTrial, WrittenArm
from medaug.spec.base import signature
from medaug.spec.classifier import ProbeSpec
from medaug.spec.trial import TrainingTrial, parse_trial


def test_a_changed_copy_has_a_name_of_its_own() -> None:
    trial = ExtractTrial(slices="slices-0", fold=0)
    key = trial.key
    changed = trial.model_copy(update={"view": 1})
    assert changed.key == ExtractTrial(slices="slices-0", fold=0, view=1).key != key
    assert trial.model_copy(update={"ranks": 2}).key == key == trial.key


SMOTE = WrittenArm(kind="smote")
GENERATE = GenerateTrial(arm="smote", maker=SMOTE, n=8, features="features-0", fold=0)
CLASSIFY = ClassifyTrial(
    classifier=ProbeSpec(),
    arm="none",
    kind="none",
    synthetic=False,
    features="f",
    n_synthetic=0,
    fold=0,
)


@pytest.mark.parametrize(
    ("trial", "beside"), [(GENERATE, ()), (CLASSIFY, ("per_class",))], ids=["generate", "classify"]
)
def test_a_trial_of_before_keeps_its_name_and_its_patients(
    trial: TrainingTrial, beside: tuple[str, ...]
) -> None:
    """When nothing said so, small training sets were drawn by the patients' names."""
    written = trial.model_copy(update={"train_rows": 16}).model_dump(mode="json")
    own = parse_trial(written)
    del written["drawn_by"]
    before = parse_trial(written)
    assert isinstance(own, TrainingTrial)
    assert isinstance(before, TrainingTrial)
    assert (own.drawn_by, before.drawn_by) == ("place", "name")
    for name in ("ranks", "recorded_key", *trial.FOR_PEOPLE, *beside):
        del written[name]
    assert before.key == signature(written) != own.key


def test_a_trial_of_all_rows_has_the_name_that_it_had() -> None:
    by_name = GENERATE.model_copy(update={"drawn_by": "name"})
    assert GENERATE.training_set is None
    assert by_name.key == GENERATE.key
