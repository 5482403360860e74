"""What a study will write is known from its plan."""

from __future__ import annotations

from pathlib import Path

import pytest

from medaug.errors import EnvironmentFault
from medaug.plan.disk import KEPT, bytes_to_write
from medaug.spec import StudySpec, TrialConfig, build_study
from medaug.spec.arms import ARM_CONFIGS
from medaug.spec.trial import parse_trial
from medaug.storage.probe import check_storage

IMAGES = {
    "name": "room",
    "data": {"image_size": 32},
    "arms": {"none": {}},
    "resources": {"max_concurrent": 2},
}
FEATURES = IMAGES | {
    "segmenter": {"base": 4},
    "features": {"tap": "conv5", "dtype": "float16"},
}


def study(settings: dict[str, object], storage: Path) -> StudySpec:
    return build_study(settings | {"storage": str(storage)}, ARM_CONFIGS)


def trial(stage: str, fold: int = 0, n: int = 0) -> TrialConfig:
    arm = {"arm": "x", "maker": {"kind": "noise"}, "n": n}
    own: dict[str, dict[str, object]] = {
        "segment": {"segmenter": {}, "slices": "none"},
        "extract": {"features": {}, "slices": "none", "unet": "none"},
        "generate": {"features": "none", **arm},
        "classify": {
            **{"features": "none", "classifier": {}, "arm": "x", "kind": "noise"},
            **{"synthetic": True, "n_synthetic": n},
        },
    }
    return parse_trial({"stage": stage, "fold": fold, **own[stage]})


def test_stores_take_what_their_rows_take(tmp_path: Path) -> None:
    trials = [trial("generate", n=100), trial("generate", 1, n=50), trial("classify")]
    assert bytes_to_write(study(IMAGES, tmp_path), trials, 1000) == 150 * 32 * 32 * 4
    trials = [trial("extract"), trial("extract", 1), trial("generate", n=100)]
    a_row = 64 * 2 * 2 * 2  # conv5 of base 4 on 32 x 32 pixels, float16
    assert bytes_to_write(study(FEATURES, tmp_path), trials, 1000) == 2100 * a_row


def test_as_many_unets_as_run_at_once(tmp_path: Path) -> None:
    one = bytes_to_write(study(FEATURES, tmp_path), [trial("segment")], 1000)
    assert one > KEPT * 16 * 100_000, "a U-Net of base 4 has more weights"
    folds = [trial("segment", fold) for fold in range(5)]
    assert bytes_to_write(study(FEATURES, tmp_path), folds, 1000) == 2 * one


def test_too_little_room_is_said_with_both_numbers(tmp_path: Path) -> None:
    need = bytes_to_write(study(IMAGES, tmp_path), [trial("generate", n=10**12)], 1)
    with pytest.raises(EnvironmentFault, match=r"need 4096000000 MB, have \d+ MB; free some space"):
        check_storage(tmp_path, need)
