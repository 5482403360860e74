"""The time to the first answer, with a tiny folder of pictures."""

from __future__ import annotations

from pathlib import Path

import pytest

from medaug.bench import Options, find_bench
from medaug.bench.first import write_images


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_pictures_come_to_a_leaderboard_and_commands_are_timed(tmp_path: Path) -> None:
    result = find_bench("first")(Options("tiny", ("images", "commands", "ray"), tmp_path))
    found = {(figure.part, figure.subject): figure for figure in result.figures}
    whole = found["40 images", "to the leaderboard"].value
    parts = [found["40 images", f"medaug {name}"].value for name in ("init", "run")]
    assert whole == pytest.approx(sum(parts))
    shares = result.details["40 images"]["shares"]
    assert sum(shares.values()) == pytest.approx(1)
    assert 0 < shares["training"] < 1
    commands = {name for part, name in found if part == "commands"}
    assert commands == {
        "medaug --help",
        "medaug show first.yaml",
        "medaug leaderboard first",
        "medaug status first",
    }
    assert 0 < found["ray", "an embedded cluster's start"].value < 300
    assert not list(tmp_path.iterdir()), "the folder is gone afterwards"


def test_pictures_are_of_two_classes_and_two_of_a_patient(tmp_path: Path) -> None:
    write_images(tmp_path, 8)
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.png")) == [
        f"{kind}/patient{patient:04d}_{i}.png"
        for kind, patients in (("clear", (0, 2)), ("lesion", (1, 3)))
        for patient in patients
        for i in range(2)
    ]
