"""What measures of quality are taken on."""

from __future__ import annotations

import numpy as np

from medaug.experiment import run_trial
from medaug.experiment.quality import _pooled, extractor_of
from medaug.plan.trials import plan_study
from medaug.storage.artifacts import Artifacts
from medaug.train.world import World
from tests.audit.small_runs import SLICES, study, write_slices


def test_an_encoders_rows_are_taken_as_they_are(tmp_path) -> None:
    spec = study(
        tmp_path,
        arms={"none": {}},
        encoder={"kind": "pixels_pca", "size": 8, "components": 10},
        classifier={"kind": "probe"},
    )
    write_slices(spec)
    trial = plan_study(spec, SLICES).extract[0]
    *_, last = run_trial(trial, World.single(), spec.storage)
    features = Artifacts(spec.storage).open_store(last.result.output)
    assert len(features) > 64  # several batches, whose memory is used again
    assert extractor_of(features)[0] == features.provenance.encoder
    assert np.array_equal(_pooled(features), features.read().x.float().numpy().reshape(-1, 10))
