"""The yardstick: a plain linear model of scikit-learn on given rows and folds, none of our code.

Standardise, principal components, L2 logistic regression, all fitted to a fold's training rows. What
medaug's instrument scores on the same rows and folds has to come near it. Images become 32 x 32 grey
pixels and 60 components of them, not standardised. As a command it takes feature or image stores,
and prints a line for each:

    python -m tests.integration.linear_reference STORE …
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

Fold = tuple[np.ndarray, np.ndarray]
"""Row numbers that are fitted to, and those that are scored."""


@dataclass(frozen=True)
class Scores:
    """Means over folds; ``auroc`` one against the rest where there are more than two classes."""

    balanced_accuracy: float
    auroc: float
    folds: int


def linear_model(n_rows: int, dim: int, components: int = 100, c: float = 1.0):
    """The pipeline; fewer components where there are not enough rows."""
    k = min(components, n_rows - 1, dim)
    return make_pipeline(
        StandardScaler(),
        PCA(k, svd_solver="full"),
        LogisticRegression(C=c, max_iter=5000, tol=1e-6),
    )


def probabilities(
    x_ND: np.ndarray,
    labels: np.ndarray,
    folds: Sequence[Fold],
    components: int = 100,
    c: float = 1.0,
    standardise: bool = True,
) -> Iterator[np.ndarray]:
    """(n, K) of each fold's scored rows; classes 0 to K-1 have to be in all training folds."""
    for train, scored in folds:
        model = linear_model(len(train), x_ND.shape[1], components, c)
        if not standardise:
            model.steps.pop(0)
        model.fit(x_ND[train], labels[train])
        yield model.predict_proba(x_ND[scored])


def score_folds(
    labels: np.ndarray, folds: Sequence[Fold], predicted: Iterable[np.ndarray]
) -> Scores:
    """Of what was ``predicted`` (:func:`probabilities`) in each fold, by rows."""
    accuracies, areas = [], []
    for (_, scored), p in zip(folds, predicted, strict=True):
        accuracies.append(balanced_accuracy_score(labels[scored], p.argmax(1)))
        if p.shape[1] == 2:
            areas.append(roc_auc_score(labels[scored], p[:, 1]))
        else:
            areas.append(roc_auc_score(labels[scored], p, multi_class="ovr"))
    return Scores(float(np.mean(accuracies)), float(np.mean(areas)), len(folds))


def grouped_folds(
    labels: np.ndarray, groups: np.ndarray, n: int = 5, repeats: int = 3
) -> list[Fold]:
    """Stratified folds of whole groups, drawn ``repeats`` times."""
    folds: list[Fold] = []
    for seed in range(repeats):
        split = StratifiedGroupKFold(n, shuffle=True, random_state=seed)
        folds += list(split.split(labels, labels, groups))
    return folds


def few_rows(folds: Sequence[Fold], labels: np.ndarray, n: int, seed: int = 0) -> list[Fold]:
    """The folds with ``n`` training rows each, as many of each class."""
    rng = np.random.default_rng(seed)
    return [(np.concatenate(list(_of_each(train, labels, n, rng))), test) for train, test in folds]


def _of_each(
    train: np.ndarray, labels: np.ndarray, n: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    classes = np.unique(labels)
    for label in classes:
        mine = train[labels[train] == label]
        yield rng.permutation(mine)[: n // len(classes)]


def grey_pixels(x_NCHW: np.ndarray, side: int = 32) -> np.ndarray:
    """(N, side²): the mean of the channels, resized by Pillow (bilinear, antialiased)."""
    small = [
        Image.fromarray(grey).resize((side, side), Image.Resampling.BILINEAR)
        for grey in x_NCHW.astype(np.float32).mean(1)
    ]
    return np.stack([np.asarray(image).ravel() for image in small])


def of_rows(x: np.ndarray, labels: np.ndarray, folds: Sequence[Fold]) -> Iterator[np.ndarray]:
    """:func:`probabilities` of features (N, D) or (N, D, 1, 1), or of images (N, C, H, W), as the
    module says."""
    if x.ndim == 4 and x.shape[-1] > 1:
        return probabilities(grey_pixels(x), labels, folds, components=60, standardise=False)
    return probabilities(x.reshape(len(x), -1), labels, folds)


def reference(x: np.ndarray, labels: np.ndarray, folds: Sequence[Fold]) -> Scores:
    """The scores of :func:`of_rows`."""
    return score_folds(labels, folds, of_rows(x, labels, folds))


def main(paths: Sequence[str]) -> None:
    from medaug.store import Store

    for path in paths:
        store = Store.open(path)
        if store.splits is not None:  # sealed patients stay sealed
            store = store.select(~np.isin(store.units, store.splits.test))
        x, labels, patients = store.read().x.float().numpy(), store.labels, store.patients
        folds = grouped_folds(labels, patients)
        whole = reference(x, labels, folds)
        few = reference(x, labels, few_rows(folds, labels, 60))
        print(
            f"{store.name}: {len(store)} rows of {len(set(patients))} patients, shape {x.shape[1:]}: "
            f"balanced accuracy {whole.balanced_accuracy:.3f} (AUROC {whole.auroc:.3f}), "
            f"of 60 rows {few.balanced_accuracy:.3f} ({few.auroc:.3f})"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
