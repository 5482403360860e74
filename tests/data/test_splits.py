"""Splits: every patient has one role per fold, every role has every class, nothing is random."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medaug.data.splits import draw_patients, make_splits, patient_labels, rename_patients
from medaug.errors import UserError
from medaug.spec import SplitSpec
from medaug.store import Fold, Splits


def cohort(*sizes):
    """Patients and labels; class k has sizes[k] patients."""
    labels = [label for label, n in enumerate(sizes) for _ in range(n)]
    return [f"patient{i:03d}" for i in range(len(labels))], labels


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(6, 40), min_size=2, max_size=3),
    folds=st.integers(2, 4),
    test=st.sampled_from([0.0, 0.2]),
    seed=st.integers(0, 5),
)
def test_roles_partition_the_patients_and_keep_the_classes(sizes, folds, test, seed):
    patients, labels = cohort(*sizes)
    spec = SplitSpec(folds=folds, test_fraction=test, seed=seed)
    splits = make_splits(patients, labels, spec)
    label_of = dict(zip(patients, labels, strict=True))
    sealed = set(splits.test)
    for fold in splits.folds:
        roles = [set(fold.train), set(fold.val), set(fold.eval), sealed]
        assert sorted(itertools.chain(*roles)) == patients
        assert len(roles[0] | roles[1] | roles[2] | roles[3]) == len(patients)
        for role in roles[: 4 if test else 3]:
            assert {label_of[p] for p in role} == set(label_of.values())
    scored = [p for fold in splits.folds for p in fold.eval]
    assert sorted(scored) == sorted(set(patients) - sealed)
    for label, size in enumerate(sizes):  # class proportions, to a patient
        held = [sum(label_of[p] == label for p in fold.eval) for fold in splits.folds]
        assert max(held) - min(held) <= 1
        assert abs(sum(label_of[p] == label for p in sealed) - test * size) <= 0.5


def test_a_split_depends_on_names_labels_and_seed_only():
    patients, labels = cohort(12, 9)
    first = make_splits(patients, labels, SplitSpec())
    assert make_splits(patients[::-1], labels[::-1], SplitSpec()) == first
    assert make_splits(patients * 3, labels * 3, SplitSpec()) == first
    assert make_splits(patients, labels, SplitSpec(seed=1)) != first


def test_a_split_of_this_version_is_that_of_every_version():
    """Splits decide every score: another outcome would make old and new runs incomparable."""
    splits = make_splits(list("abcdefgh"), [0] * 4 + [1] * 4, SplitSpec(folds=2))
    assert splits.folds == (
        Fold(tuple("cg"), tuple("dh"), tuple("abef")),
        Fold(tuple("af"), tuple("be"), tuple("cdgh")),
    )


@pytest.mark.parametrize(("val_fraction", "sizes"), [(0.0, (90, 0, 11)), (0.2, (72, 18, 11))])
def test_the_published_scheme_is_one_cut_of_everybody(val_fraction, sizes):
    """With study A's .109 of 40 and 61 patients, its 4 and 7 test patients."""
    patients, labels = cohort(40, 61)
    spec = SplitSpec(scheme="published", eval_fraction=0.109, val_fraction=val_fraction)
    splits = make_splits(patients, labels, spec)
    (fold,) = splits.folds
    assert (len(fold.train), len(fold.val), len(fold.eval)) == sizes
    assert sorted((*fold.train, *fold.val, *fold.eval)) == patients
    label_of = dict(zip(patients, labels, strict=True))
    assert [sum(label_of[p] == label for p in fold.eval) for label in (0, 1)] == [4, 7]
    assert make_splits(patients[::-1], labels[::-1], spec) == splits
    assert make_splits(patients, labels, spec.model_copy(update={"seed": 1})) != splits


@pytest.mark.parametrize(("val_fraction", "fewest"), [(0.0, 2), (0.2, 3)])
def test_a_published_cut_needs_one_of_each_class_in_every_role(val_fraction, fewest):
    spec = SplitSpec(scheme="published", unit="image", val_fraction=val_fraction)
    (fold,) = make_splits(*cohort(9, fewest), spec).folds
    assert all(role for role in (fold.train, fold.eval, fold.val or fold.eval))
    with pytest.raises(UserError, match=f"class 1 has {fewest - 1} images, too few for {fewest}"):
        make_splits(*cohort(9, fewest - 1), spec)


def test_rename_keeps_the_split():
    splits = make_splits(*cohort(6, 6), SplitSpec(folds=3, test_fraction=0.2))
    names = {f"patient{i:03d}": f"p-{97 * i % 100:02d}" for i in range(12)}
    renamed = rename_patients(splits, names)
    for old, new in zip(splits.folds, renamed.folds, strict=True):
        assert set(new.train) == {names[p] for p in old.train}
        assert list(new.eval) == sorted(names[p] for p in old.eval)
    assert set(renamed.test) == {names[p] for p in splits.test}


@pytest.mark.parametrize(
    ("sizes", "spec"),
    [
        ((9, 0), SplitSpec()),  # row 65: one class only
        ((9, 4), SplitSpec(folds=5)),
        ((9, 2), SplitSpec(folds=2)),  # one in eval, one left for train and val
        ((9, 3), SplitSpec(folds=3, test_fraction=0.2)),
        ((0, 0), SplitSpec()),
    ],
)
def test_too_few_patients_are_refused(sizes, spec):
    with pytest.raises(UserError, match=r"cannot stratify: class [LH]GG has \d patients, too few"):
        make_splits(*cohort(*sizes), spec, ["LGG", "HGG"])


@pytest.mark.parametrize(("sizes", "folds"), [((9, 5), 5), ((3, 3), 3)])
def test_the_fewest_patients_that_will_do(sizes, folds):
    assert len(make_splits(*cohort(*sizes), SplitSpec(folds=folds)).folds) == folds


def test_a_patient_in_two_roles_is_leakage():  # row 66
    with pytest.raises(UserError, match="exactly one role"):
        Splits((Fold(("a", "b"), ("c",), ("a",)),))


def test_a_patient_counts_as_its_highest_class():
    assert patient_labels(["a", "b", "a", "b"], [0, 1, 1, 0]) == {"a": 1, "b": 1}


@pytest.mark.parametrize(("n", "wanted"), [(10, (6, 4)), (5, (3, 2)), (2, (1, 1)), (50, (30, 20))])
def test_drawing_keeps_the_classes(n, wanted):
    patients, labels = cohort(30, 20)
    label_of = dict(zip(patients, labels, strict=True))
    drawn = draw_patients(label_of, n, seed=3)
    assert tuple(sum(label_of[p] == k for p in drawn) for k in (0, 1)) == wanted
    assert drawn == draw_patients(dict(reversed(label_of.items())), n, seed=3)
    assert n == 50 or drawn != draw_patients(label_of, n, seed=4)
