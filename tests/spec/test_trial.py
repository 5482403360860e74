"""Trials and their names."""

from __future__ import annotations

from medaug.spec import ExtractTrial


def test_a_changed_copy_has_a_name_of_its_own() -> None:
    trial = ExtractTrial(slices="slices-0", fold=0)
    key = trial.key
    changed = trial.model_copy(update={"view": 1})
    assert changed.key == ExtractTrial(slices="slices-0", fold=0, view=1).key != key
    assert trial.model_copy(update={"ranks": 2}).key == key == trial.key
