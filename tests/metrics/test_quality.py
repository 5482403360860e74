import os
import subprocess
import sys

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.neighbors import KNeighborsClassifier

from medaug.metrics.quality import classifier_two_sample, quality_report, train_on_test_on

WAYS = np.random.default_rng(99).normal(size=(10, 60))


def features(patients: int, rows: int, seed: int, spread: float = 1.0):
    """ReLU features of 10 latent traits per patient, one of which carries the class."""
    rng = np.random.default_rng(seed)
    index = np.repeat(np.arange(patients), rows)
    traits = spread * rng.normal(size=(patients, 10))
    traits[:, 0] += 3.0 * (np.arange(patients) % 2)
    latent = traits[index] + 0.5 * spread * rng.normal(size=(len(index), 10))
    noise = 0.5 * spread * rng.normal(size=(len(index), 60))
    return np.maximum(latent @ WAYS + noise, 0), index % 2, np.char.add("p", index.astype(str))


TRAIN, TRAIN_LABEL, PATIENTS = features(40, 15, seed=0)
HELDOUT, HELDOUT_LABEL, HELDOUT_PATIENTS = features(20, 15, seed=1)


def report(fake: np.ndarray, label: np.ndarray, **options) -> dict[str, float]:
    return quality_report(
        TRAIN,
        HELDOUT,
        fake,
        train_label=TRAIN_LABEL,
        heldout_label=HELDOUT_LABEL,
        fake_label=label,
        train_patients=PATIENTS,
        heldout_patients=HELDOUT_PATIENTS,
        repeats=4,
        **options,
    )


def test_unseen_patients_look_real_and_copy_nobody():
    fake, label, _ = features(600, 1, seed=2)
    scores = report(fake, label)
    assert all(np.isfinite(value) for value in scores.values())
    assert scores["fd"] < scores["fd_null"]
    assert scores["fd_ratio"] < 1.2
    assert scores["precision"] > scores["precision_null"] - 0.15
    assert scores["diversity"] == pytest.approx(1, abs=0.15)
    assert scores["c2st"] == pytest.approx(0.5, abs=0.1)
    assert scores["near_copy_rate"] < 0.15
    assert scores["authenticity"] == pytest.approx(scores["authenticity_null"], abs=0.15)
    assert scores["nn_ratio"] == pytest.approx(1, abs=0.15)
    assert scores["tstr"] > 0.8
    assert scores["fd"] == pytest.approx((scores["fd_class0"] + scores["fd_class1"]) / 2)


@pytest.mark.parametrize("n", [30, 60, 240])
def test_a_perfect_generator_scores_the_null_however_few_its_rows(n: int):
    """Fréchet distance and coverage depend on the number of rows, on both sides alike."""
    rows, labels, patients = features(700, 1, seed=0)
    train, fake = slice(0, 400), slice(400, 400 + n)
    scores = quality_report(
        rows[train],
        HELDOUT,
        rows[fake],
        train_label=labels[train],
        heldout_label=HELDOUT_LABEL,
        fake_label=labels[fake],
        train_patients=patients[train],
        heldout_patients=HELDOUT_PATIENTS,
    )
    assert scores["fd_ratio"] == pytest.approx(1, abs=0.25)
    for name in ("precision", "recall", "coverage", "diversity", "c2st"):
        assert scores[name] == pytest.approx(scores[f"{name}_null"], abs=0.1), name


def test_copies_score_well_on_distance_and_are_found_out():
    ratios = []
    for seed in range(6):  # of one draw it is .29 to .35
        pick = np.random.default_rng(seed).integers(0, len(TRAIN), 600)
        scores = report(TRAIN[pick], TRAIN_LABEL[pick])
        assert scores["near_copy_rate"] == 1
        assert scores["authenticity"] == scores["nn_ratio"] == 0
        ratios.append(scores["fd"] / scores["fd_null"])
    assert np.mean(ratios) < 1 / 3


def test_a_collapsed_generator_is_narrow_and_not_a_copier():
    fake, label, _ = features(600, 1, seed=3, spread=0.1)
    scores = report(fake, label)
    assert scores["diversity"] < 0.3
    assert scores["recall"] < 0.1
    assert scores["fd"] > scores["fd_null"]
    assert scores["near_copy_rate_low"] < scores["near_copy_rate_heldout"]


def test_swapped_labels_show_in_class_scores_and_in_tstr():
    fake, label, _ = features(600, 1, seed=2)
    right, wrong = report(fake, label), report(fake, 1 - label)
    assert wrong["fd"] > 2 * right["fd"]
    assert wrong["tstr"] < 0.2 < 0.8 < wrong["trtr"]
    assert wrong["near_copy_rate"] == right["near_copy_rate"]


def test_a_report_is_reproducible_and_row_caps_hold():
    fake, label, _ = features(200, 1, seed=2)
    assert report(fake, label, max_rows=100) == report(fake, label, max_rows=100)


def test_what_the_rows_do_not_allow_is_nan():
    one_patient = np.where(TRAIN_LABEL == 1, "p1", PATIENTS)
    fake, label, _ = features(60, 1, seed=2)
    only_zero = label == 0
    scores = quality_report(
        TRAIN,
        HELDOUT,
        fake[only_zero],
        train_label=TRAIN_LABEL,
        heldout_label=HELDOUT_LABEL,
        fake_label=label[only_zero],
        train_patients=one_patient,
        heldout_patients=HELDOUT_PATIENTS,
        repeats=2,
    )
    assert np.isfinite(scores["fd_class0"])
    assert np.isnan([scores[name] for name in ("fd", "fd_class1", "fd_null_class1", "tstr")]).all()
    assert np.isfinite([scores["near_copy_rate"], scores["trtr"]]).all()


def test_two_sample_accuracy_tells_shifted_rows_and_takes_any_classifier():
    rng = np.random.default_rng(0)
    real, same = rng.normal(size=(2, 300, 5))
    shifted = same + np.array([3, 0, 0, 0, 0])
    assert classifier_two_sample(real, same) == pytest.approx(0.5, abs=0.07)
    assert classifier_two_sample(real, shifted) > 0.9
    neighbours = KNeighborsClassifier(5)
    assert classifier_two_sample(real, shifted, estimator=neighbours) > 0.85
    assert np.isnan(classifier_two_sample(real, same, np.zeros(300)))


def test_two_samples_are_told_apart_as_by_the_library_s_discriminant():
    rng = np.random.default_rng(1)
    real, fake = rng.normal(size=(90, 6)) * np.arange(1, 7), rng.normal(0.5, 2.0, size=(150, 6))
    library = LinearDiscriminantAnalysis(solver="lsqr", priors=[0.5, 0.5])
    for seed in range(5):
        ours = classifier_two_sample(real, fake, seed=seed)
        assert ours == pytest.approx(
            classifier_two_sample(real, fake, estimator=library, seed=seed), abs=0.02
        )


def test_two_sample_folds_keep_patients_whole():
    """With a patient in two folds, a neighbour classifier would know it again."""
    fake, _, fake_patients = features(40, 15, seed=5)
    options = {"estimator": KNeighborsClassifier(1)}
    leaky = classifier_two_sample(TRAIN, fake, **options)
    honest = classifier_two_sample(TRAIN, fake, PATIENTS, fake_patients, **options)
    assert leaky > 0.8 > 0.65 > honest


def test_training_on_one_is_testing_on_the_other():
    score = train_on_test_on(TRAIN, TRAIN_LABEL, HELDOUT, HELDOUT_LABEL)
    nearest = KNeighborsClassifier(1)
    by_neighbour = train_on_test_on(TRAIN, TRAIN_LABEL, HELDOUT, HELDOUT_LABEL, estimator=nearest)
    expected = nearest.fit(TRAIN, TRAIN_LABEL).predict(HELDOUT) == HELDOUT_LABEL
    assert by_neighbour == pytest.approx(
        np.mean([expected[c == HELDOUT_LABEL].mean() for c in (0, 1)])
    )
    assert score > 0.75
    assert np.isnan(train_on_test_on(TRAIN, TRAIN_LABEL, HELDOUT[:15], HELDOUT_LABEL[:15] * 0))


def test_no_measure_needs_torchvision():
    code = (
        "import sys; sys.modules['torchvision'] = None\n"
        "from medaug.metrics import classification, generative, leakage, neighbours, predictions, "
        "quality, registration, segmentation, significance, uncertainty\n"
        "import numpy as np; x = np.random.default_rng(0).normal(size=(2, 40, 3))\n"
        "label = np.arange(40) % 2; patients = np.arange(40) // 4\n"
        "quality.quality_report(x[0], x[1], x[1], train_label=label, heldout_label=label, "
        "fake_label=label, train_patients=patients, heldout_patients=patients, repeats=2)"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, env=environment)


def test_rows_that_are_smoother_than_real_ones_can_still_teach():
    """Generated rows that tell the classes apart but lack the real ones' small variations."""
    rng = np.random.default_rng(0)
    label = np.repeat([0, 1], 150)
    real = rng.normal(size=(2, 300, 60))
    real[:, label == 1, :5] += 1.0
    fake = real[0].copy()
    fake[:, 5:] *= 0.02
    by_real = train_on_test_on(real[0], label, real[1], label)
    assert train_on_test_on(fake, label, real[1], label) > by_real - 0.03 > 0.8


def test_few_training_rows_do_not_make_a_perfect_generator_look_narrow():
    """Principal components of few rows leave out what others vary in."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(400, 300))
    label = np.arange(400) % 2
    names = np.char.add("p", np.arange(400).astype(str))
    train, fake, heldout = slice(0, 60), slice(60, 200), slice(200, 400)
    scores = quality_report(
        rows[train],
        rows[heldout],
        rows[fake],
        train_label=label[train],
        heldout_label=label[heldout],
        fake_label=label[fake],
        train_patients=names[train],
        heldout_patients=names[heldout],
    )
    assert scores["diversity"] == pytest.approx(1, abs=0.05)
    for name in ("precision", "recall", "coverage"):
        assert scores[name] == pytest.approx(scores[f"{name}_null"], abs=0.1), name
    assert scores["nn_ratio"] == pytest.approx(1, abs=0.05)
