"""Linear classifiers against scikit-learn's and closed forms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medaug.errors import IntegrityError, UserError
from medaug.spec import LinearSpec, MeanSpec, ProbeSpec, build_classifier
from medaug.store import Store
from medaug.train.checkpoint import Ledger
from medaug.train.classify import classifier_of, train_classifier
from medaug.train.flat_rows import FlatRows
from medaug.train.linear import (
    LinearClassifier,
    LinearJob,
    fit_linear,
    fit_many,
    prepare,
)
from medaug.train.space import EXACT_ROWS, FeatureSpace
from medaug.train.weighting import patient_weights
from medaug.train.world import World
from tests.train.cohorts import features

ALONE = World.single()
NAMES = ("normal", "bacteria", "virus")


def rows(
    n: int, d: int, classes: int = 2, seed: int = 0, *, shares: tuple[float, ...] | None = None,
    apart: float = 1.0, dtype: str = "float32",
) -> FlatRows:  # fmt: skip
    """Correlated rows of unlike scales, whose classes differ in their first numbers; 3 a patient.

    Labels are independent of the patient: slices of one person may differ."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).standard_normal((20, d))
    label = rng.choice(classes, n, p=shares)
    label[:classes] = range(classes)
    x = rng.standard_normal((n, 20)) @ mixing + rng.standard_normal((n, d))
    for k in range(classes):
        x[label == k, k : k + 2] += apart * 4
    x = x * np.linspace(0.1, 30, d) + 7
    patient = np.array([f"p-{i // 3}" for i in range(n)])
    return FlatRows(x.astype(dtype), label, patient, NAMES[:classes])


def pipeline(components: int | None, c: float, **options: Any) -> Any:
    steps: list[Any] = [StandardScaler()]
    if components is not None:
        steps.append(PCA(components, svd_solver="full"))
    return make_pipeline(*steps, LogisticRegression(C=c, tol=1e-10, max_iter=10**5, **options))


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(("n", "d", "components"), [
    (120, 30, None), (120, 30, 10), (60, 400, None), (60, 400, 15), (60, 400, 59),
])  # fmt: skip
@pytest.mark.parametrize("weighting", ["none", "class_weights"])
def test_a_probe_is_scikit_learns_pipeline(
    n: int, d: int, components: int | None, classes: int, weighting: str
) -> None:
    real, val, other = (rows(m, d, classes, seed) for seed, m in enumerate((n, 45, 50)))
    spec = ProbeSpec(components=components, c_grid=(0.01,), weighting=weighting)  # type: ignore[arg-type]
    found = fit_linear(spec, real, None, val)
    options = {"class_weight": "balanced"} if weighting == "class_weights" else {}
    model = pipeline(components, 0.01, **options).fit(real.x.astype(float), real.label)
    expected = model.predict_proba(other.x.astype(float))
    np.testing.assert_allclose(found.probability(other.x), expected, atol=2e-5)


@pytest.mark.parametrize("classes", [2, 3])
def test_added_rows_join_in_the_space_of_the_real_ones(classes: int) -> None:
    real, added, val = (rows(n, 80, classes, seed) for seed, n in enumerate((50, 70, 30)))
    spec = ProbeSpec(components=12, c_grid=(0.1,))
    model = pipeline(12, 0.1)
    model[:-1].fit(real.x.astype(float))
    for only_added in (False, True):
        found = fit_linear(spec, real, added, val, only_added=only_added)
        used = [added] if only_added else [real, added]
        x = np.concatenate([each.x for each in used]).astype(float)
        model[-1].fit(model[:-1].transform(x), np.concatenate([each.label for each in used]))
        expected = model.predict_proba(val.x.astype(float))
        np.testing.assert_allclose(found.probability(val.x), expected, atol=2e-5)


@pytest.mark.parametrize("weighting", ["none", "class_weights", "logit_adjust"])
def test_refitted_with_the_validation_rows_when_all_is_chosen(weighting: str) -> None:
    real, added, val, other = (
        rows(n, 40, 3, s, shares=(0.6, 0.3, 0.1)) for s, n in enumerate((60, 20, 45, 50))
    )
    spec = ProbeSpec(components=12, weighting=weighting)  # type: ignore[arg-type]
    before = fit_linear(spec, real, added, val)
    found = fit_linear(spec, real, added, val, refit=True)
    assert (found.scores, found.threshold) == (before.scores, before.threshold)
    options = {"class_weight": "balanced"} if weighting == "class_weights" else {}
    model = pipeline(12, 10 ** found.scores["log10_c"], **options)
    model[:-1].fit(real.x.astype(float))  # the space stays that of the training rows
    used = [model[:-1].transform(each.x.astype(float)) for each in (real, added, val)]
    label = np.concatenate([each.label for each in (real, added, val)])
    model[-1].fit(np.concatenate(used), label)
    expected = model.predict_proba(other.x.astype(float))
    if weighting == "logit_adjust":
        expected /= np.bincount(label)
        expected /= expected.sum(1, keepdims=True)
    np.testing.assert_allclose(found.probability(other.x), expected, atol=2e-5)


@pytest.mark.parametrize("kind", ["class_mean", "cosine_mean"])
def test_means_are_refitted_at_the_same_temperature(kind: str) -> None:
    real, val, other = (rows(n, 40, 2, s) for s, n in enumerate((60, 40, 30)))
    spec = MeanSpec(kind=kind)  # type: ignore[arg-type]
    before, found = (fit_linear(spec, real, None, val, refit=each) for each in (False, True))
    assert found.scores == before.scores
    joined = fit_linear(spec, real, val, val)  # the same rows, at a temperature of their own
    here, there = (each.logits(other.x) for each in (found, joined))
    ratio = (here[:, 1] - here[:, 0]) / (there[:, 1] - there[:, 0])
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)
    assert not np.allclose(here, before.logits(other.x))


def test_validation_patients_choose_the_penalty() -> None:
    real, val = rows(60, 200, seed=0, apart=5), rows(40, 200, seed=1, apart=5)
    for each in (real, val):
        each.label[::4] ^= 1  # so that no penalty at all is too weak
    # One patient has twenty slices: he counts as one.
    many = np.r_[np.zeros(20, int), np.arange(1, 40)]
    val = FlatRows(val.x[many], val.label[many], val.patient[many], val.classes)
    grid = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    found = fit_linear(ProbeSpec(components=None, c_grid=grid), real, None, val)
    weight = patient_weights(val.patient)
    assert weight.sum() == pytest.approx(len(np.unique(val.patient)))
    losses = []
    for c in grid:
        model = pipeline(None, c).fit(real.x.astype(float), real.label)
        p = model.predict_proba(val.x.astype(float))[np.arange(len(val)), val.label]
        losses.append(np.average(-np.log(p), weights=weight))
    assert 0 < int(np.argmin(losses)) < len(grid) - 1
    assert 10 ** found.scores["log10_c"] == pytest.approx(grid[int(np.argmin(losses))])
    assert found.scores["val/loss"] == pytest.approx(min(losses), rel=1e-4)


def test_of_equal_losses_the_stronger_penalty_wins() -> None:
    x = rows(20, 10).x
    # To each row its mirror image of the same class: no direction tells the classes apart.
    label, patient = np.arange(20) % 2, np.array([f"p-{i}" for i in range(40)])
    even = FlatRows(np.r_[x, 2 * x.mean(0) - x], np.r_[label, label], patient, NAMES[:2])
    found = fit_linear(ProbeSpec(c_grid=(1e-3, 1e-2, 1e-1)), even, None, even)
    assert found.scores["val/loss"] == pytest.approx(np.log(2))
    assert found.scores["log10_c"] == pytest.approx(-3)


@pytest.mark.parametrize("components", [None, 8])
@pytest.mark.parametrize("classes", [2, 3])
def test_class_mean_in_closed_form(classes: int, components: int | None) -> None:
    real, val, other = (rows(n, 40, classes, s) for s, n in enumerate((60, 40, 30)))
    found = fit_linear(MeanSpec(components=components), real, None, val)
    space = make_pipeline(
        StandardScaler(), *([PCA(components, svd_solver="full")] if components else [])
    )
    z, to = space.fit_transform(real.x.astype(float)), space.transform(other.x.astype(float))
    means = np.stack([z[real.label == k].mean(0) for k in range(classes)])
    t = 10 ** found.scores["log10_temperature"]
    squares = ((to[:, None] - means) ** 2).sum(2)
    np.testing.assert_allclose(
        found.probability(other.x), softmax(-squares / (2 * t), axis=1), atol=1e-5
    )


def test_cosine_mean_in_closed_form() -> None:
    real, val, other = (
        rows(n, 40, 3, s, shares=(0.7, 0.2, 0.1)) for s, n in enumerate((90, 40, 30))
    )
    found = fit_linear(MeanSpec(kind="cosine_mean", components=None), real, None, val)
    scaler = StandardScaler()
    z, to = scaler.fit_transform(real.x.astype(float)), scaler.transform(other.x.astype(float))
    means = np.stack([z[real.label == k].mean(0) for k in range(3)])
    middle = means.mean(0)
    a, b = to - middle, means - middle
    cosine = a @ b.T / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)
    t = 10 ** found.scores["log10_temperature"]
    np.testing.assert_allclose(found.probability(other.x), softmax(cosine / t, axis=1), atol=1e-5)


def test_a_temperature_neither_saturates_nor_stays_flat() -> None:
    """Validation rows that happen to be told apart do not send probabilities to 0 and 1."""
    real, val = rows(60, 20, apart=5, seed=0), rows(8, 20, apart=5, seed=1)
    probability = fit_linear(MeanSpec(), real, None, val).probability(val.x)
    assert (probability.argmax(1) == val.label).all()
    assert 0.6 < probability.max(1).mean() < 0.99


KINDS: tuple[LinearSpec, ...] = (
    ProbeSpec(components=10), ProbeSpec(components=None), ProbeSpec(weighting="logit_adjust"),
    ProbeSpec(weighting="class_weights"), MeanSpec(), MeanSpec(kind="cosine_mean"),
)  # fmt: skip


@pytest.mark.parametrize("spec", KINDS, ids=str)
def test_neither_the_order_of_rows_nor_of_classes_matters(spec: LinearSpec) -> None:
    real, val = (rows(n, 50, 3, s, shares=(0.5, 0.3, 0.2)) for s, n in enumerate((70, 40)))
    found = fit_linear(spec, real, None, val).probability(val.x)
    order = np.random.default_rng(0).permutation(len(real))
    mixed = FlatRows(real.x[order], real.label[order], real.patient[order], real.classes)
    np.testing.assert_allclose(
        fit_linear(spec, mixed, None, val).probability(val.x), found, atol=1e-5
    )
    other = np.array([2, 0, 1])  # class k is now called other[k]
    names = tuple(np.array(real.classes)[np.argsort(other)])
    turned = [FlatRows(r.x, other[r.label], r.patient, names) for r in (real, val)]
    np.testing.assert_allclose(
        fit_linear(spec, turned[0], None, turned[1]).probability(val.x)[:, other], found, atol=1e-5
    )


@pytest.mark.parametrize("spec", KINDS, ids=str)
def test_rows_of_any_kind(spec: LinearSpec) -> None:
    """Half floats, constant numbers, far more numbers than rows, rows with a new constant."""
    real, val = (rows(24, 3000, seed=s, dtype="float16") for s in (0, 1))
    for each in (real, val):
        each.x[:, 100:200] = 3.0
    val.x[:, 100] = 9.0  # a number that says nothing in training says nothing later
    found = fit_linear(spec, real, None, val)
    probability = found.probability(val.x)
    assert np.isfinite(probability).all()
    np.testing.assert_allclose(probability.sum(1), 1, rtol=1e-5)
    val.x[:, 100] = 3.0
    np.testing.assert_array_equal(found.probability(val.x), probability)
    alike = FlatRows(np.ones((6, 4), np.float32), np.arange(6) % 2, real.patient[:6], real.classes)
    np.testing.assert_allclose(
        fit_linear(spec, alike, None, alike).probability(alike.x), 0.5, atol=1e-6
    )


def test_logit_adjustment_is_that_of_the_used_rows() -> None:
    real = rows(80, 30, 3, shares=(0.7, 0.2, 0.1))
    added, val = rows(40, 30, 3, 1), rows(40, 30, 3, 2)
    plain, adjusted = (
        fit_linear(ProbeSpec(c_grid=(0.01,), weighting=how), real, added, val)  # type: ignore[arg-type]
        for how in ("none", "logit_adjust")
    )
    share = np.bincount(np.r_[real.label, added.label]) / 120
    expected = plain.probability(val.x) / share
    expected /= expected.sum(1, keepdims=True)
    np.testing.assert_allclose(adjusted.probability(val.x), expected, atol=1e-5)


@pytest.mark.parametrize(("n", "d"), [(60, 40), (40, 60), (1600, 1700)])
def test_components_are_scikit_learns(n: int, d: int) -> None:
    """Few rows, few numbers, and more of both than are solved exactly."""
    x = rows(n, d).x
    space, codes = FeatureSpace.fit(x, 8)
    z = StandardScaler().fit_transform(x.astype(float))
    expected = PCA(8, svd_solver="full").fit(z)
    assert space.axes is not None
    np.testing.assert_allclose(space.axes.T @ space.axes, np.eye(8), atol=1e-6)
    np.testing.assert_allclose(codes.var(0, ddof=1), expected.explained_variance_, rtol=2e-3)
    if n < EXACT_ROWS:
        np.testing.assert_allclose(np.abs(codes), np.abs(expected.transform(z)), atol=1e-3)
    np.testing.assert_allclose(space.encode(x), codes, atol=1e-8 * np.abs(codes).max())


def test_many_share_what_they_can_and_are_what_they_are_alone() -> None:
    one, two, val = rows(40, 60, seed=0), rows(44, 60, seed=1), rows(30, 60, seed=2)
    added = [None, rows(20, 60, seed=3), rows(30, 60, seed=4)]
    spec = ProbeSpec(components=10)
    jobs = [
        LinearJob((i, j), real, more, val)
        for i, real in enumerate((one, two))
        for j, more in enumerate(added)
    ]
    found = dict(fit_many(spec, jobs))
    assert list(found) == [job.key for job in jobs]
    for job in jobs:
        alone = fit_linear(spec, job.real, job.added, job.val)
        np.testing.assert_array_equal(alone.weight, found[job.key].weight)
        assert alone.threshold == found[job.key].threshold
    prepared = prepare(spec, one, val)
    np.testing.assert_array_equal(
        fit_linear(spec, one, added[1], val, prepared=prepared).weight, found[0, 1].weight
    )


@pytest.mark.parametrize("spec", KINDS, ids=str)
def test_what_is_saved_comes_back(spec: LinearSpec, tmp_path: Path) -> None:
    real, val = rows(40, 60, seed=0), rows(30, 60, seed=1)
    found = fit_linear(spec, real, None, val)
    found.save(tmp_path / "it.safetensors")
    again = LinearClassifier.load(tmp_path / "it.safetensors")
    assert (again.spec, again.threshold, again.scores) == (spec, found.threshold, found.scores)
    np.testing.assert_array_equal(again.probability(val.x), found.probability(val.x))
    data = (tmp_path / "it.safetensors").read_bytes()
    for broken in (data[:40], b"x" * 40, data[: len(data) // 2]):
        (tmp_path / "it.safetensors").write_bytes(broken)
        with pytest.raises(IntegrityError, match="holds no linear classifier"):
            LinearClassifier.load(tmp_path / "it.safetensors")


@pytest.mark.parametrize("kind", ["probe", "class_mean", "cosine_mean"])
def test_trained_and_resumed_like_a_network(kind: str, tmp_path: Path) -> None:
    real, added, val = (features(tmp_path / str(s), 40, seed=s) for s in range(3))
    spec = build_classifier({"kind": kind, "components": 20})
    (progress,) = train_classifier(spec, real, added, val, ALONE, 0)
    assert progress.checkpoint is not None
    assert progress.result.history == [progress.metrics]
    probability = progress.result.predict(val, ALONE)
    assert (probability.argmax(1) == val.labels).mean() > 0.7
    Ledger(tmp_path / "ledger").commit(progress.checkpoint, fingerprint="x")
    stored = Ledger(tmp_path / "ledger").latest("x")
    assert stored is not None
    (again,) = train_classifier(spec, real, added, val, ALONE, 0, resume=stored)
    assert (again.epoch, again.metrics) == (1, progress.metrics)
    opened = classifier_of(stored, spec, real.schema.shape, 2, threshold=0.5)
    for each in (again.result, opened):
        np.testing.assert_array_equal(each.predict(val, ALONE), probability)
        assert each.threshold == progress.result.threshold


def test_says_what_is_wrong(tmp_path: Path) -> None:
    real, val = rows(20, 10), rows(10, 10, seed=1)
    spec = ProbeSpec()

    def only(r: FlatRows, keep: np.ndarray) -> FlatRows:
        return FlatRows(r.x[keep], r.label[keep], r.patient[keep], r.classes)

    nothing = only(real, np.zeros(20, bool))
    unlabelled = FlatRows(val.x, np.full(10, -1), val.patient, val.classes)
    for arguments, words in (
        ((only(real, real.label == 0), None, val), "no training row of class bacteria among"),
        ((nothing, None, val), "no training rows"),
        ((real, None, nothing), "no validation rows"),
        ((real, None, unlabelled), "validation rows without a label"),
        ((real, rows(5, 11), val), r"added rows have shape \(5, 11\)"),
    ):
        with pytest.raises(UserError, match=words):
            fit_linear(spec, *arguments)
    with pytest.raises(UserError, match="no training rows"):
        fit_linear(spec, real, None, val, only_added=True)
    found = fit_linear(spec, real, None, val)
    with pytest.raises(UserError, match="rows of 11 numbers, but it was trained on 10"):
        found.probability(rows(5, 11).x)
    store = features(tmp_path / "rows", 8)
    with pytest.raises(UserError, match="no rows to predict"):
        found.predict(store.select([]), ALONE)


def test_rows_of_a_store(tmp_path: Path) -> None:
    store = features(tmp_path / "rows", 600, (2, 3, 4))
    found = FlatRows.of(store)
    assert found.x.shape == (600, 24)
    np.testing.assert_array_equal(found.x, store.read().x.float().flatten(1).numpy())
    assert isinstance(store, Store)
    assert (found.label == store.labels).all()
    assert (found.patient == store.patients).all()


def test_feature_maps_are_pooled_and_images_are_not(tmp_path: Path) -> None:
    maps = features(tmp_path / "maps", 40)
    x = maps.read().x.float().numpy()
    pooled = np.concatenate([x.mean((2, 3)), x.max((2, 3))], axis=1)
    np.testing.assert_allclose(FlatRows.of(maps).x, pooled, rtol=1e-6)
    assert FlatRows.of(maps, "none").x.shape == (40, 6 * 4 * 4)
    assert FlatRows.of(features(tmp_path / "rgb", 8, (3, 4, 4))).x.shape == (8, 48)
    assert FlatRows.of(features(tmp_path / "vectors", 8, (30, 1, 1))).x.shape == (8, 30)


def test_a_probe_of_maps_predicts_from_maps(tmp_path: Path) -> None:
    maps = features(tmp_path / "maps", 80)
    vectors = FlatRows.of(maps)
    found = fit_linear(ProbeSpec(), vectors, None, vectors)
    np.testing.assert_array_equal(
        found.predict(maps, ALONE), found.probability(maps.read().x.float().numpy())
    )


def test_added_rows_bring_directions_that_few_real_rows_do_not_span() -> None:
    """24 rows and 300 more of the same kind see as much as 324, whichever are called added."""
    rng = np.random.default_rng(0)
    d = 60
    shift = rng.standard_normal(d) / d**0.5

    def rows(n: int) -> FlatRows:
        label = np.arange(n) % 2
        x = rng.standard_normal((n, d)) + 2.4 * np.outer(label - 0.5, shift)
        return FlatRows(x.astype(np.float32), label, np.arange(n).astype(str), ("a", "b"))

    few, more, val, test = rows(24), rows(300), rows(100), rows(4000)
    spec = ProbeSpec(threshold="half")
    both = FlatRows(
        np.r_[few.x, more.x], np.r_[few.label, more.label], np.r_[few.patient, more.patient],
        few.classes,
    )  # fmt: skip

    def accuracy(real: FlatRows, added: FlatRows | None) -> float:
        found = fit_linear(spec, real, added, val)
        return float(np.mean(found.logits(test.x).argmax(1) == test.label))

    assert accuracy(few, more) == pytest.approx(accuracy(both, None), abs=0.01)
    assert accuracy(few, more) > accuracy(few, None) + 0.04
    assert accuracy(few, few) == pytest.approx(accuracy(few, None), abs=0.03)  # nothing new in it


def test_further_directions_are_orthogonal_and_real_rows_are_zero_in_them() -> None:
    rng = np.random.default_rng(1)
    real, added = rng.standard_normal((12, 40)), rng.standard_normal((30, 40))
    space, codes = FeatureSpace.fit(real, 20)
    more = space.extended(added, 20)
    assert more is not None
    assert more.axes is not None
    assert space.axes is not None
    assert more.axes.shape == (40, 20 - 11)
    assert np.allclose(more.axes.T @ more.axes, np.eye(9))
    assert np.allclose(space.axes.T @ more.axes, 0)
    assert np.allclose(more.encode(real), 0)
    assert np.allclose(space.joined(more).encode(real)[:, :11], codes)
    assert space.extended(real[:5], 20) is None
    assert FeatureSpace.fit(added, 20)[0].extended(real, 20) is None
