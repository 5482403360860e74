from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score

from medaug.errors import UserError
from medaug.models.classifiers import CLASSIFIERS
from medaug.seeding import numbered
from medaug.spec import NetworkSpec
from medaug.store import Store
from medaug.train import feed, resident
from medaug.train.checkpoint import Ledger, Progress
from medaug.train.choice import best_threshold, chosen_threshold, plainly_lower
from medaug.train.classify import train_classifier
from medaug.train.loop import Diverged
from medaug.train.network import PROFILE, NetworkClassifier
from medaug.train.world import World
from tests.train.cohorts import features

SHAPE = (6, 4, 4)
ALONE = World.single()


def spec(**changes: Any) -> NetworkSpec:
    settings = {"kind": "feature_cnn", "epochs": 3, "batch_size": 8, "dropout": 0.0}
    return NetworkSpec.model_validate(settings | changes)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    folder = tmp_path_factory.mktemp("features")
    features(folder / "real", 40)
    features(folder / "added", 24, seed=1)
    features(folder / "val", 30, seed=2)
    return folder / "real", folder / "added", folder / "val"


Paths = tuple[Path, Path, Path]


def run(
    world: World, cohort: Paths, settings: NetworkSpec, *, added: bool = True, **options: Any
) -> list[Progress]:
    real, extra, val = map(Store.open, cohort)
    rows = extra if added else None
    return list(train_classifier(settings, real, rows, val, world, 5, **options))


def result(progress: list[Progress]) -> NetworkClassifier:
    found = progress[-1].result
    assert isinstance(found, NetworkClassifier)
    return found


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", "sgd"])
@pytest.mark.parametrize("kind", ["feature_cnn", "linear"])
def test_overfits_a_tiny_set(cohort: Paths, kind: str, optimizer: str) -> None:
    lr = {"feature_cnn": 3e-3, "linear": 3e-2}[kind]
    settings = spec(kind=kind, optimizer=optimizer, epochs=30, lr=lr)
    real = Store.open(cohort[0])
    *_, last = train_classifier(settings, real, None, real, ALONE, 0)
    probability = last.result.predict(real, ALONE)
    assert probability.shape == (40, 2)
    np.testing.assert_allclose(probability.sum(1), 1, rtol=1e-6)
    score = balanced_accuracy_score(real.labels, probability[:, 1] >= last.result.threshold)
    assert score == 1.0
    assert last.metrics["train/loss"] < 0.2


def test_the_result_can_be_the_epoch_with_the_lowest_validation_loss(cohort: Paths) -> None:
    progress = run(ALONE, cohort, spec(epochs=12, lr=1e-2, final="best_epoch"))
    found = result(progress)
    losses = [p.metrics["val/loss"] for p in progress]
    assert found.best_epoch == 1 + losses.index(min(losses)) != len(losses)
    assert found.scores == progress[found.best_epoch - 1].metrics
    assert found.history == [p.metrics for p in progress]
    val = Store.open(cohort[2])
    probability = found.predict(val, ALONE)
    nll = -np.log(probability[np.arange(30), val.labels]).mean()
    assert nll == pytest.approx(min(losses), rel=1e-4)
    assert found.scores["val/balanced_accuracy"] == pytest.approx(
        balanced_accuracy_score(val.labels, probability.argmax(1))
    )
    assert found.threshold == chosen_threshold(probability[:, 1], val.labels, val.patients)


def test_the_result_is_an_average_over_the_last_steps(cohort: Paths) -> None:
    """In closed form: after step t, weights of step s count (s/t)^a - ((s - 1)/t)^a."""
    real, val = Store.open(cohort[0]), Store.open(cohort[2])
    settings = spec(kind="linear", epochs=12, lr=1e-3, batch_size=40)  # a step an epoch
    progress = list(train_classifier(settings, real, None, val, ALONE, 5))
    weights = [p.checkpoint.tensors for p in progress if p.checkpoint]
    power = PROFILE + 1
    share = np.diff([(s / 12) ** power for s in range(13)])
    assert share.sum() == pytest.approx(1)
    found = result(progress)
    for name, tensor in found.weights.items():
        each = torch.stack([w[f"network.{name}"] for w in weights])
        expected = torch.tensordot(torch.from_numpy(share).float(), each, 1)
        torch.testing.assert_close(tensor, expected, rtol=1e-4, atol=1e-6)
    assert found.best_epoch == 12
    assert found.scores == progress[-1].metrics
    probability = found.predict(val, ALONE)
    nll = -np.log(probability[np.arange(30), val.labels]).mean()
    assert nll == pytest.approx(progress[-1].metrics["val/loss"], rel=1e-4)


def test_an_earlier_average_is_the_result_where_it_was_plainly_better(tmp_path: Path) -> None:
    few = features(tmp_path / "few", 12, difference=0.1)
    val = features(tmp_path / "val", 40, seed=1, difference=0.1)
    settings = spec(epochs=30, lr=1e-2, batch_size=4)
    progress = list(train_classifier(settings, few, None, val, ALONE, 0))
    found = result(progress)
    losses = [p.metrics["val/loss"] for p in progress]
    assert found.best_epoch < 15
    assert losses[-1] > losses[found.best_epoch - 1] + 0.1
    assert found.scores == progress[found.best_epoch - 1].metrics
    shorter = spec(epochs=found.best_epoch, lr=1e-2, batch_size=4)
    *_, last = train_classifier(shorter, few, None, val, ALONE, 0)
    assert last.result.best_epoch == found.best_epoch
    for name, tensor in last.result.weights.items():
        assert torch.equal(found.weights[name], tensor), name
    (again,) = train_classifier(settings, few, None, val, ALONE, 0, resume=progress[-1].checkpoint)
    assert same(again.result, found)


def test_plainly_lower_is_by_more_than_two_standard_errors() -> None:
    losses = np.array([0.5, 0.4, 0.6, 0.5])
    differences = np.array([0.1, 0.3, -0.1, 0.1])  # mean .1, standard error .0816
    assert plainly_lower(losses, losses + differences + 0.07)
    assert not plainly_lower(losses, losses + differences + 0.06)
    assert not plainly_lower(losses, losses)
    assert not plainly_lower(losses[:1], losses[:1] + 1)  # of one patient nobody knows


def test_batch_norm_is_that_of_the_averaged_weights(cohort: Paths) -> None:
    """Its statistics are those of the training rows, however few steps there were."""
    real, val = Store.open(cohort[0]), Store.open(cohort[2])
    for optimizer in ("adam", "sgd"):
        settings = spec(epochs=2, batch_size=40, dropout=0.5, optimizer=optimizer)
        *_, last = train_classifier(settings, real, None, val, ALONE, 0)
        found = result([last])
        first = CLASSIFIERS["feature_cnn"](SHAPE, 2, 0.5)[0]
        first.load_state_dict({k: found.weights[f"0.{k}"] for k in ("weight", "bias")})
        with torch.no_grad():
            y = first(found.scale.encode(real.read().x))
        torch.testing.assert_close(
            found.weights["1.running_mean"], y.mean((0, 2, 3)), rtol=1e-3, atol=1e-4
        )
        torch.testing.assert_close(
            found.weights["1.running_var"], y.var((0, 2, 3)), rtol=1e-3, atol=1e-4
        )


def test_stops_early_and_stays_stopped(cohort: Paths) -> None:
    settings = spec(epochs=60, lr=1e-2, final="best_epoch", early_stop=3)
    progress = run(ALONE, cohort, settings)
    found = result(progress)
    assert len(progress) == found.best_epoch + 3 < 60
    (again,) = run(ALONE, cohort, settings, resume=progress[-1].checkpoint)
    assert again.epoch == len(progress)
    assert again.result.best_epoch == found.best_epoch
    assert same(again.result, found)


def same(a: NetworkClassifier, b: NetworkClassifier) -> bool:
    return (a.threshold, a.best_epoch, a.history) == (b.threshold, b.best_epoch, b.history) and all(
        torch.equal(a.weights[k], w) for k, w in b.weights.items()
    )


@pytest.mark.parametrize("settings", [
    spec(dropout=0.5), spec(dropout=0.5, final="best_epoch"), spec(kind="linear", dropout=0.5, balanced_sampler=True),
    spec(optimizer="sgd"), spec(optimizer="rmsprop"),
])  # fmt: skip
def test_resume_after_every_epoch_is_bit_for_bit(
    cohort: Paths, tmp_path: Path, settings: NetworkSpec
) -> None:
    whole = run(ALONE, cohort, settings)
    for stopped in whole:
        ledger = Ledger(tmp_path / str(stopped.epoch))
        assert stopped.checkpoint is not None
        ledger.commit(stopped.checkpoint, fingerprint="x")
        rest = run(ALONE, cohort, settings, resume=ledger.latest("x"))
        assert rest[-1].metrics == whole[-1].metrics
        assert same(result(rest), result(whole))


def _outcome(
    world: World, cohort: Paths, settings: NetworkSpec, kept_bytes: int
) -> tuple[list[dict[str, float]], dict[str, torch.Tensor], np.ndarray]:
    resident.CPU_BYTES = kept_bytes
    progress = run(world, cohort, settings)
    val = Store.open(cohort[2]).select(np.arange(29))
    return (
        [p.metrics for p in progress],
        result(progress).weights,
        result(progress).predict(val, world),
    )


@pytest.mark.parametrize(("kept_bytes", "changes"), [
    (1 << 30, {"optimizer": "sgd"}),
    (1 << 30, {"optimizer": "sgd", "final": "best_epoch"}),
    (0, {"optimizer": "sgd", "batch_size": 7, "weighting": "class_weights", "focal_gamma": 2.0}),
    (1 << 30, {"kind": "linear", "batch_size": 7, "balanced_sampler": True}),
])  # fmt: skip
def test_two_ranks_equal_one_with_the_same_global_batch(
    two_ranks, cohort: Paths, kept_bytes: int, changes: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(resident, "CPU_BYTES", kept_bytes)
    settings = spec(epochs=2, **changes)
    metrics, weights, probability = _outcome(ALONE, cohort, settings, kept_bytes)
    for other_metrics, other_weights, other in two_ranks(_outcome, cohort, settings, kept_bytes):
        for name, tensor in weights.items():
            # Not with Adam and BatchNorm: the gradient of a bias before BatchNorm is 0 but for
            # rounding, which Adam scales to a step.
            off = (other_weights[name].double() - tensor.double()).norm()
            assert off <= 2e-6 * tensor.double().norm() + 1e-7, name
        for mine, theirs in zip(metrics, other_metrics, strict=True):
            assert mine == pytest.approx(theirs, rel=1e-5)
        np.testing.assert_allclose(other, probability, rtol=1e-4)


def test_a_store_kept_in_memory_gives_the_same_as_one_read_each_time(
    cohort: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    for settings in (spec(), spec(kind="linear", balanced_sampler=True)):
        monkeypatch.setattr(resident, "CPU_BYTES", 1 << 30)
        kept = run(ALONE, cohort, settings)
        monkeypatch.setattr(resident, "CPU_BYTES", 0)
        read = run(ALONE, cohort, settings)
        assert [p.metrics for p in kept] == [p.metrics for p in read]
        assert same(result(kept), result(read))


def test_steps_are_those_of_the_real_rows_unless_given(cohort: Paths) -> None:
    def steps(**options: Any) -> int:
        checkpoint = run(ALONE, cohort, spec(epochs=2), **options)[-1].checkpoint
        assert checkpoint is not None
        return checkpoint.step

    assert steps() == steps(added=False) == 2 * (40 // 8)
    assert steps(steps_per_epoch=8) == 2 * 8


def test_added_rows_take_part(cohort: Paths) -> None:
    settings = spec(kind="linear", epochs=40, lr=1e-2, threshold="half")
    real, added, val = map(Store.open, cohort)
    few = real.select(np.r_[np.flatnonzero(real.labels == 0), np.flatnonzero(real.labels == 1)[:1]])
    recalls = []
    for extra in (None, added.select(added.labels == 1)):
        *_, last = train_classifier(settings, few, extra, val, ALONE, 0)
        predicted = last.result.predict(val, ALONE).argmax(1)
        recalls.append((predicted == 1)[val.labels == 1].mean())
    assert recalls[1] > recalls[0] + 0.2


def test_real_rows_can_be_left_out_but_for_the_scaling(cohort: Paths) -> None:
    real, added, val = map(Store.open, cohort)
    wrong = real.select(real.labels == 0)  # a classifier of these knows one class only
    settings = spec(kind="linear", epochs=20, lr=3e-2, threshold="half")
    *_, last = train_classifier(settings, wrong, added, val, ALONE, 0, only_added=True)
    alone = last.result
    *_, last = train_classifier(settings, added, None, val, ALONE, 0, steps_per_epoch=2)
    recalls = [(alone.predict(val, ALONE).argmax(1) == c)[val.labels == c].mean() for c in (0, 1)]
    assert min(recalls) > 0.6
    assert torch.equal(alone.scale.shift, feed.fit_scale(wrong, ALONE).shift)
    assert not torch.equal(alone.scale.shift, last.result.scale.shift)


@pytest.mark.parametrize("how", [
    {"weighting": "class_weights"}, {"weighting": "logit_adjust"}, {"balanced_sampler": True},
])  # fmt: skip
def test_imbalance_can_be_countered(tmp_path: Path, how: dict[str, Any]) -> None:
    real = features(tmp_path / "real", 120, positives=0.1, difference=0.3)
    val = features(tmp_path / "val", 60, seed=1, difference=0.3)

    def recall(settings: NetworkSpec) -> float:
        *_, last = train_classifier(settings, real, None, val, ALONE, 0)
        probability = last.result.predict(val, ALONE)
        return float((probability.argmax(1) == 1)[val.labels == 1].mean())

    plain = spec(kind="linear", epochs=20, lr=1e-2)
    assert recall(plain) + 0.2 < recall(plain.model_copy(update=how))


def test_more_outputs_than_classes_and_more_classes_than_two(tmp_path: Path) -> None:
    real = features(tmp_path / "three", 60, classes=3)
    settings = spec(kind="linear", n_out=3, epochs=30, lr=3e-2, weighting="class_weights")
    *_, last = train_classifier(settings, real, None, real, ALONE, 0)
    assert last.metrics["val/balanced_accuracy"] > 0.9
    assert last.result.threshold == 0.5
    two = features(tmp_path / "two", 40)
    *_, last = train_classifier(settings, two, None, two, ALONE, 0)
    probability = last.result.predict(two, ALONE)
    assert probability.shape == (40, 2)
    np.testing.assert_allclose(probability.sum(1), 1, rtol=1e-6)
    assert last.result.scores["val/balanced_accuracy"] > 0.9
    with pytest.raises(UserError, match=r"classifier\.n_out: 2 outputs for 3 classes"):
        next(train_classifier(spec(n_out=2), real, None, real, ALONE, 0))


def test_an_mlp_takes_rows_of_any_shape(tmp_path: Path) -> None:
    for shape in ((40,), (3, 4, 5)):
        name = "-".join(map(str, shape))
        real, val = (
            features(tmp_path / f"{name}-{s}", 60, shape, seed=s, difference=4) for s in (0, 1)
        )
        settings = spec(kind="mlp", epochs=30, dropout=0.2)
        *_, last = train_classifier(settings, real, None, val, ALONE, 0)
        assert balanced_accuracy_score(val.labels, last.result.predict(val, ALONE).argmax(1)) > 0.7


def test_scaling_is_fitted_on_real_rows_and_kept_with_the_classifier(
    cohort: Paths, tmp_path: Path
) -> None:
    real, _, val = map(Store.open, cohort)
    far = features(tmp_path / "far", 24, difference=500.0)
    with_far = result(list(train_classifier(spec(epochs=1), real, far, val, ALONE, 0)))
    without = result(list(train_classifier(spec(epochs=1), real, None, val, ALONE, 0)))
    x = real.read().x.double()
    for found in (with_far, without):
        torch.testing.assert_close(found.scale.shift.double(), x.mean((0, 2, 3)))
        expected = x.var((0, 2, 3), correction=0).sqrt()
        torch.testing.assert_close(found.scale.spread.double(), expected, rtol=1e-5, atol=0)


def test_a_silent_channel_does_not_shout_later(tmp_path: Path) -> None:
    store = features(tmp_path / "real", 16)
    scale = feed.fit_scale(store, ALONE)
    quiet = torch.tensor([1e-9, 0.0, *[1.0] * 4])

    class Rows:
        schema, labels, classes = store.schema, store.labels, store.classes

        def __len__(self) -> int:
            return 16

        def batches(self, *args: Any, **options: Any) -> Any:
            for batch in store.batches(*args, **options):
                batch.x = batch.x.float() * quiet.view(-1, 1, 1)
                yield batch

    found = feed.fit_scale(Rows(), ALONE)  # type: ignore[arg-type]
    torch.testing.assert_close(found.spread[2:], scale.spread[2:])
    loudness = found.spread[2:].square().sum().div(6).sqrt()
    torch.testing.assert_close(found.spread[:2], (0.1 * loudness).expand(2))


def test_the_fixed_part_is_what_comes_before_the_first_weights() -> None:
    fixed, trained = feed.split_fixed(CLASSIFIERS["linear"](SHAPE, 2, 0.5))
    assert [type(m).__name__ for m in fixed] == ["AdaptiveAvgPool2d", "Flatten"]
    assert [type(m).__name__ for m in trained.children()] == ["Dropout", "Linear"]
    network = CLASSIFIERS["feature_cnn"](SHAPE, 2, 0.5)
    fixed, trained = feed.split_fixed(network)
    assert len(fixed) == 0
    assert len(list(trained.children())) == len(list(network.children()))
    resnet = CLASSIFIERS["resnet50"]((1, 32, 32), 2, 0.4)
    assert feed.split_fixed(resnet)[1] is resnet


@pytest.mark.parametrize("seed", range(20))
def test_threshold_maximises_balanced_accuracy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    label = (rng.random(60) < 0.3).astype(int)
    probability = np.round(np.clip(0.25 + 0.2 * label + 0.2 * rng.standard_normal(60), 0, 1), 2)
    found = best_threshold(probability, label)
    thresholds = np.linspace(0, 1.01, 2000)
    positive = probability >= thresholds[:, None]
    recalls = [(positive == k)[:, label == k].mean(1) for k in (0, 1)]
    scores = (recalls[0] + recalls[1]) / 2
    best = scores.max()
    assert balanced_accuracy_score(label, probability >= found) == pytest.approx(best)
    nearest = np.abs(thresholds[scores > best - 1e-9] - 0.5).min()
    # Ends of the best interval against its middle: less than half its length apart.
    assert abs(found - 0.5) < nearest + 0.02


@pytest.mark.parametrize(("probability", "label"), [
    ([0.2, 0.9], [1, 1]), ([0.4, 0.4], [0, 1]), ([0.9, 0.1], [0, 1]), ([0.3], [0]),
])  # fmt: skip
def test_threshold_is_a_half_where_none_is_better(
    probability: list[float], label: list[int]
) -> None:
    assert best_threshold(np.array(probability), np.array(label)) == 0.5


def test_the_chosen_threshold_is_the_mean_over_resampled_patients() -> None:
    rng = np.random.default_rng(1)
    patient = rng.integers(0, 12, 40).astype(str)
    label = (rng.random(40) < 0.4).astype(int)
    probability = np.round(0.2 + 0.1 * label + 0.4 * rng.random(40), 2)
    found = chosen_threshold(probability, label, patient)
    each = []
    for _ in range(2000):
        drawn = rng.choice(np.unique(patient), 12)
        times = np.array([(drawn == name).sum() / (patient == name).sum() for name in patient])
        if times @ label > 0 and times @ (1 - label) > 0:
            each.append(best_threshold(probability, label, times))
    assert found == pytest.approx(np.mean(each), abs=4 * np.std(each) / 10)
    assert np.std(each) > 0.005
    order = np.argsort(numbered(patient)[1], kind="stable")  # each patient's rows together
    assert chosen_threshold(probability[order], label[order], patient[order]) == pytest.approx(
        found
    )
    others = np.array(["p" + str(7 * int(name) % 12) for name in patient])
    assert chosen_threshold(probability, label, others) == found, "names decide"
    assert chosen_threshold(probability, np.zeros(40, int), patient) == 0.5
    # Resamples without the one patient of a rare class do not pull it to a half.
    rare, alone = np.r_[np.zeros(20, int), 1], np.arange(21).astype(str)
    assert chosen_threshold(np.r_[np.full(20, 0.01), 0.03], rare, alone) == pytest.approx(0.02)


def test_an_absurd_rate_is_a_divergence(cohort: Paths) -> None:
    with pytest.raises(Diverged):
        run(ALONE, cohort, spec(optimizer="sgd", lr=1e30, epochs=5))


def test_says_what_is_wrong(cohort: Paths, tmp_path: Path) -> None:
    real, _, val = map(Store.open, cohort)
    unlabelled = features(tmp_path / "unlabelled", 4, unlabelled=True)
    vectors = features(tmp_path / "vectors", 4, (6,))
    for settings, stores, words in (
        (spec(), (real.select([]), val), "no training rows"),
        (spec(), (real, unlabelled), "validation rows without a label"),
        (spec(kind="oracle"), (real, val), "unknown 'oracle'; use probe, .*, feature_cnn, "),
        (
            spec(),
            (vectors, vectors),
            r"rows have shape \(6,\), and feature_cnn takes \(C, H, W\); use mlp or one of probe",
        ),
    ):
        with pytest.raises(UserError, match=words):
            next(train_classifier(settings, stores[0], None, stores[1], ALONE, 0))
    found = result(run(ALONE, cohort, spec(epochs=1)))
    with pytest.raises(UserError, match="no rows to predict"):
        found.predict(real.select([]), ALONE)
