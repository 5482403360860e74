"""Linear classifiers on flat rows: a probe fitted to convergence, and nearest class means.

One fit takes milliseconds, so that a study can afford hundreds of replicates. What replicates
share - standardisation and principal components of the same real training rows - is made once, by
:func:`prepare`; :func:`fit_many` does so for a whole bundle of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medaug.errors import IntegrityError, UserError
from medaug.spec.classifier import LinearSpec, ProbeSpec, build_classifier
from medaug.store import Store
from medaug.train.choice import chosen_threshold
from medaug.train.flat_rows import FlatRows, as_vectors, blocks_of
from medaug.train.means import Logits, fit_means, temperature
from medaug.train.probe import Judge, LinearFit, fit_probe, unit
from medaug.train.space import FeatureSpace
from medaug.train.weighting import (
    class_counts,
    class_weights,
    equal_classes,
    log_loss,
    logit_shift,
    patient_weights,
)
from medaug.train.world import World

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController


@dataclass(frozen=True, eq=False)
class LinearClassifier:
    """A trained linear classifier: one matrix on flat rows."""

    spec: LinearSpec
    n_classes: int
    weight: np.ndarray
    """(d, K) float64 on rows as they are, or (k, K) on codes of length 1 where there is a
    ``space``."""
    bias: np.ndarray
    """(K,) float64, the adjustment for unequal classes included."""
    space: FeatureSpace | None
    """Of ``cosine_mean``, whose logits are no linear function of a row."""
    threshold: float
    """From this probability on a row is positive (the last of two classes)."""
    scores: dict[str, float]
    """What was chosen on the validation rows, and their loss under it."""

    best_epoch = 1

    @property
    def history(self) -> list[dict[str, float]]:
        return [self.scores]

    def logits(self, x: np.ndarray) -> np.ndarray:
        """(n, K) float64 of rows (n, ...) of any float type."""
        x = as_vectors(x, self.spec.pool)
        numbers = len(self.weight if self.space is None else self.space.mean)
        if x.shape[1] != numbers:
            raise UserError(
                f"classifier: rows of {x.shape[1]} numbers, but it was trained on {numbers}; use "
                "rows of its own store"
            )
        with one_thread():
            codes = x.astype(np.float64) if self.space is None else unit(self.space.encode(x))
            return codes @ self.weight + self.bias

    def probability(self, x: np.ndarray) -> np.ndarray:
        """(n, K) float32."""
        return softmax(self.logits(x), axis=1).astype(np.float32)

    def predict(self, rows: Store, world: World) -> np.ndarray:
        """Class probabilities (n, K) float32 of ``rows``, in order.

        Raises UserError when there are no rows.
        """
        if len(rows) == 0:
            raise UserError(f"classifier: no rows to predict in {rows.name}; check the split")
        return np.concatenate([self.probability(block) for _, block in blocks_of(rows)])

    def tensors(self) -> dict[str, np.ndarray]:
        """All arrays, by name; :meth:`of` makes the classifier from them and :meth:`facts`."""
        space = {} if self.space is None else self.space.tensors()
        return {
            "weight": self.weight,
            "bias": self.bias,
            **{f"space.{name}": each for name, each in space.items()},
        }

    def facts(self) -> dict[str, Any]:
        """All else, JSON-ready."""
        return {
            "spec": self.spec.canonical(),
            "n_classes": self.n_classes,
            "threshold": self.threshold,
            "scores": self.scores,
        }

    @staticmethod
    def of(tensors: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> LinearClassifier:
        """From what :meth:`tensors` and :meth:`facts` gave."""
        spec = build_classifier(facts["spec"])
        assert isinstance(spec, LinearSpec)
        space = {k.removeprefix("space."): t for k, t in tensors.items() if k.startswith("space.")}
        return LinearClassifier(
            spec=spec,
            n_classes=facts["n_classes"],
            weight=tensors["weight"],
            bias=tensors["bias"],
            space=FeatureSpace.of(space) if space else None,
            threshold=facts["threshold"],
            scores=dict(facts["scores"]),
        )

    def save(self, path: Path) -> None:
        """Write a safetensors file; nothing in it is code."""
        from safetensors.numpy import save_file

        save_file(
            {k: np.ascontiguousarray(v) for k, v in self.tensors().items()},
            path,
            {"classifier": json.dumps(self.facts())},
        )

    @staticmethod
    def load(path: Path) -> LinearClassifier:
        """What :meth:`save` wrote.

        Raises:
            IntegrityError: the file is damaged, or holds something else.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "numpy") as file:
                facts = json.loads((file.metadata() or {})["classifier"])
                names = list(file.keys())
                return LinearClassifier.of({k: file.get_tensor(k) for k in names}, facts)
        except (SafetensorError, KeyError, ValueError) as fault:
            raise IntegrityError(f"{path}: holds no linear classifier ({fault})") from fault


@dataclass(frozen=True, eq=False)
class Prepared:
    """What all classifiers with the same real training and validation rows share."""

    space: FeatureSpace
    real_codes: np.ndarray
    """(n, k) float64."""
    val_codes: np.ndarray

    def with_rows(self, added: FlatRows, val: FlatRows, components: int | None) -> Prepared:
        """With the directions that ``added`` rows bring where real rows are too few for them."""
        more = self.space.extended(added.x, components)
        if more is None:
            return self
        val_codes = np.hstack([self.val_codes, more.encode(val.x)])
        width = val_codes.shape[1] - self.real_codes.shape[1]
        real_codes = np.pad(self.real_codes, ((0, 0), (0, width)))
        return Prepared(self.space.joined(more), real_codes, val_codes)


@dataclass(frozen=True, eq=False)
class LinearJob:
    """One of many classifiers to fit; ``key`` is its caller's name for it."""

    key: Any
    real: FlatRows
    added: FlatRows | None
    val: FlatRows
    only_added: bool = False
    refit: bool = False


def prepare(spec: LinearSpec, real: FlatRows, val: FlatRows) -> Prepared:
    """Standardisation and components of ``real``, and both sets' codes.

    Raises:
        UserError: no rows, rows without a label, or rows of different length.
    """
    _check("training", real, real)
    _check("validation", val, real)
    with one_thread():
        space, codes = FeatureSpace.fit(real.x, spec.components)
        return Prepared(space, codes, space.encode(val.x))


def fit_linear(
    spec: LinearSpec,
    real: FlatRows,
    added: FlatRows | None,
    val: FlatRows,
    *,
    only_added: bool = False,
    refit: bool = False,
    prepared: Prepared | None = None,
) -> LinearClassifier:
    """Fit on ``real`` and ``added`` rows; ``val`` chooses penalty, temperature and threshold.

    Real rows decide the standardisation and the components; where they are fewer than these, added
    rows bring the rest. With ``only_added`` they decide nothing else.

    Args:
        refit: when all is chosen, fit once more with ``val`` among the real rows. The threshold is
            the one before, chosen on rows that had not been fitted to. On EfficientNet features of
            149 head CTs it is worth .02 to .03 of balanced accuracy, a quarter more rows being a
            quarter more rows; it is for studies of all rows, not of their number.
        prepared: what :func:`prepare` gave for the same ``spec.components``, ``real`` and ``val``.

    Raises:
        UserError: no rows, rows without a label, or a class without training rows.
    """
    prepared = prepared or prepare(spec, real, val)
    if added is not None:
        _check("added", added, real, least=0)
    with one_thread():
        if added is not None:
            prepared = prepared.with_rows(added, val, spec.components)
        codes, label = _used(prepared, real, added, only_added)
        counts = class_counts(label, real.classes)
        shift = logit_shift(counts, spec.weighting)
        weight = patient_weights(val.patient)
        if spec.weighting != "none":  # its probabilities are those under classes of equal size
            weight = equal_classes(val.label, weight, len(counts))

        def judge(logits: np.ndarray) -> float:
            return log_loss(logits + shift, val.label, weight)

        def cool(logits: Logits) -> float:
            return temperature(logits(prepared.val_codes), val.label, weight)

        grid = spec.c_grid if isinstance(spec, ProbeSpec) else ()
        fit = _fit(spec, codes, label, counts, grid, prepared.val_codes, judge, cool)
        val_logits = fit.logits(prepared.val_codes)
        scores = {**fit.chosen, "val/loss": judge(val_logits)}
        threshold = 0.5
        if spec.threshold == "validation" and len(counts) == 2:
            probability = softmax(val_logits + shift, axis=1)[:, 1]
            threshold = chosen_threshold(probability, val.label, val.patient)
        if refit:
            codes, label = np.r_[codes, prepared.val_codes], np.r_[label, val.label]
            counts = class_counts(label, real.classes)
            shift = logit_shift(counts, spec.weighting)
            c, t = 10 ** scores.get("log10_c", 0), 10 ** scores.get("log10_temperature", 0)
            nothing = codes[:0]
            fit = _fit(spec, codes, label, counts, (c,), nothing, lambda _: 0.0, lambda _: t)
        return _on_rows(spec, prepared.space, fit, shift, threshold, scores)


def _fit(
    spec: LinearSpec,
    codes: np.ndarray,
    label: np.ndarray,
    counts: np.ndarray,
    c_grid: Sequence[float],
    val_codes: np.ndarray,
    judge: Judge,
    cool: Callable[[Logits], float],
) -> LinearFit:
    if not isinstance(spec, ProbeSpec):
        return fit_means(spec.kind, codes, label, cool)
    weights = class_weights(counts)[label] if spec.weighting == "class_weights" else None
    return fit_probe(codes, label, weights, c_grid, val_codes, judge)


def fit_many(spec: LinearSpec, jobs: Iterable[LinearJob]) -> Iterator[tuple[Any, LinearClassifier]]:
    """(key, classifier) of each job, in order.

    Jobs that follow each other with the very same ``real`` and ``val`` objects share what
    :func:`prepare` makes, so order them by these.
    """
    last: LinearJob | None = None
    for job in jobs:
        if last is None or job.real is not last.real or job.val is not last.val:
            prepared = prepare(spec, job.real, job.val)
        last = job
        yield (
            job.key,
            fit_linear(
                *(spec, job.real, job.added, job.val),
                only_added=job.only_added,
                refit=job.refit,
                prepared=prepared,
            ),
        )


def softmax(logits: np.ndarray, axis: int) -> np.ndarray:
    """SciPy's, loaded when it is needed: the training loops run where there is none."""
    from scipy import special

    return special.softmax(logits, axis=axis)


def one_thread() -> AbstractContextManager[Any]:
    """BLAS on one thread: these matrices are small, and processes stand side by side."""
    return _controller().limit(limits=1, user_api="blas")


@cache
def _controller() -> ThreadpoolController:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()  # looking for the libraries takes milliseconds


def _used(
    prepared: Prepared, real: FlatRows, added: FlatRows | None, only_added: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Codes and labels of the rows that are fitted to."""
    codes = [] if only_added else [prepared.real_codes]
    labels = [] if only_added else [real.label]
    if added is not None:
        codes.append(prepared.space.encode(added.x))
        labels.append(added.label)
    if not sum(map(len, labels)):
        raise UserError("classifier: no training rows; check the split")
    return np.concatenate(codes), np.concatenate(labels)


def _on_rows(
    spec: LinearSpec,
    space: FeatureSpace,
    fit: LinearFit,
    shift: np.ndarray,
    threshold: float,
    scores: dict[str, float],
) -> LinearClassifier:
    if fit.centre is None:
        (weight, bias), kept = space.affine(fit.weight, fit.bias), None
    else:
        weight, bias, kept = fit.weight, fit.bias, space.seen_from(fit.centre)
    return LinearClassifier(spec, len(shift), weight, bias + shift, kept, threshold, scores)


def _check(name: str, rows: FlatRows, real: FlatRows, least: int = 1) -> None:
    if len(rows) < least:
        raise UserError(f"classifier: no {name} rows; check the split")
    if len(rows) and rows.label.min() < 0:
        raise UserError(f"classifier: {name} rows without a label; leave them out")
    if rows.x.ndim != 2 or rows.x.shape[1] != real.x.shape[1]:
        raise UserError(
            f"classifier: {name} rows have shape {rows.x.shape}, the real ones {real.x.shape}; "
            "rows of different kinds do not mix"
        )
