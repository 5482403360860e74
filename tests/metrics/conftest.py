from collections.abc import Callable

import numpy as np
import pytest

from medaug.metrics.predictions import Predictions


@pytest.fixture
def cohort() -> Callable[..., Predictions]:
    """Simulated cross-validated predictions with patient, seed and patient-by-seed effects."""
    return simulate


def simulate(
    rng: np.random.Generator,
    *,
    patients: int = 40,
    seeds: int = 5,
    rows: int = 10,
    skill: float = 0.6,
    patient_effect: np.ndarray | None = None,
    patient_sd: float = 1.2,
    seed_sd: float = 0.1,
) -> Predictions:
    """``rows`` predictions for each patient under each seed; every fifth patient shares a fold.

    Log-odds of class 1 = +-skill + patient + seed + patient x seed + row effects, all normal.
    """
    label = np.arange(patients) % 2
    if patient_effect is None:
        patient_effect = rng.normal(0, patient_sd, patients)
    of_patient = (2 * label - 1) * skill + patient_effect
    of_seed = rng.normal(0, seed_sd, (seeds, 2))[:, label] + rng.normal(0, 0.5, (seeds, patients))
    odds = (of_patient + of_seed)[..., None] + rng.normal(0, 0.8, (seeds, patients, rows))
    seed, patient, _ = (axis.ravel() for axis in np.indices(odds.shape))
    probability = 1 / (1 + np.exp(-odds.ravel()))
    return Predictions(
        patient=np.char.add("p-", np.char.zfill(patient.astype(str), 4)),
        label=label[patient],
        seed=seed,
        draw=np.zeros(len(seed), dtype=np.int64),
        fold=patient % 5,
        probability=probability,
        threshold=np.full(len(seed), 0.5),
        predicted=(probability >= 0.5).astype(np.int64),
    )
