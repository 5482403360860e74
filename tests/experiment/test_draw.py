"""Stage ``draw``: what a bundle makes is made piece by piece, in a trial, before all else."""

from __future__ import annotations

import hashlib
import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medaug.arms.monai_bundle import BLOCK, build, draw_block, read_bundle, tensors_of
from medaug.errors import UserError
from medaug.experiment import output_name, run_trial
from medaug.given import bring_given
from medaug.plan.disk import bytes_to_write
from medaug.plan.draws import draws_of
from medaug.plan.forecast.costs import estimate, trial_seconds
from medaug.plan.forecast.forecast import whole_plan
from medaug.plan.forecast.kinds import kind_of, measure
from medaug.plan.forecast.rehearsal import first_blocks
from medaug.plan.trials import plan_study
from medaug.spec import DrawTrial, StudySpec
from medaug.spec.trial import parse_trial
from medaug.storage.artifacts import Artifacts
from medaug.storage.results import DrawResult, parse_result
from medaug.storage.trial_folder import TrialFolder
from medaug.store import Store
from medaug.sweep.display import Silent
from medaug.sweep.events import Outcome
from medaug.train.world import World
from medaug.waves import has_inputs
from tests.arms.test_monai_bundle import write_bundle
from tests.audit.small_runs import SIZE, SLICES
from tests.experiment.in_process import InProcess
from tests.experiment.test_given import of_folder, pictures, write_folder, write_real
from tests.extras import needs_monai
from tests.plan.test_costs import KIND, small_of
from tests.ranks import Ranks

pytestmark = needs_monai

stage = importlib.import_module("medaug.experiment.draw")
"""The room: the stage itself is called alike."""

SIDE, N = 64, 40
"""At 64 pixels a shard is a block of images; 40 are two and a half."""


def of_bundle(storage: Path, bundle: Path, **keys: Any) -> StudySpec:
    public = {"public": "open scans"}
    return of_folder(storage, bundle, kind="monai_bundle", **{"made_from": public, **keys})


def brought(spec: StudySpec) -> tuple[dict[Any, str], list[Outcome], InProcess]:
    folder, sweep = spec.storage / spec.name, InProcess(spec.storage)
    folder.mkdir(parents=True, exist_ok=True)
    given, outcomes = bring_given(spec, SLICES, folder, Silent(), sweep)  # type: ignore[arg-type]
    return dict(given), outcomes, sweep


def trial_in(storage: Path, **changes: Any) -> DrawTrial:
    """Of a bundle that the storage has."""
    keys = {"side": SIDE, "steps": changes.pop("steps", 1)}
    ((trial, bundle),) = draws_of(of_bundle(storage, write_bundle(storage / "bundle"), **keys))
    stage.publish_bundle(trial, bundle, Artifacts(storage))
    return trial.model_copy(update={"n": N, **changes})


def drawn(trial: DrawTrial, storage: Path, world: World | None = None) -> Store:
    *_, last = run_trial(trial, world or World.single(), storage)
    assert isinstance(last.result, DrawResult)
    assert parse_result(last.result.model_dump(mode="json")) == last.result
    return Artifacts(storage).open_store(last.result.output)


def digests(store: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in store.iterdir()}


def test_an_image_is_of_its_class_and_index_alone(tmp_path: Path) -> None:
    """Row for row what the sampler makes of a block; a longer axis begins with the same ones."""
    trial = trial_in(tmp_path, numbers=(1, 0), steps=2)
    made = drawn(trial, tmp_path)
    assert made.labels.tolist() == [0] * N + [1] * N
    assert made.slice_index.tolist() == [*range(N)] * 2
    assert made.provenance.synthetic
    bundle = read_bundle(tmp_path / "bundle")
    network, how = build(bundle.recipe, tensors_of(bundle)), {"channels": 1, "side": SIDE}
    x = made.read().x.numpy()
    for first in (0, 2 * BLOCK):
        block = draw_block(
            network, bundle.recipe, 0, first, **how, steps=trial.steps, output=trial.output
        )
        wanted = block[: N - first]
        np.testing.assert_array_equal(x[N + first : N + first + BLOCK], wanted)
    fewer = drawn(trial.model_copy(update={"n": 20}), tmp_path).read().x.numpy()
    np.testing.assert_array_equal(fewer, np.concatenate([x[:20], x[N : N + 20]]))


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("after", [1, 3, 5])
def test_a_draw_that_is_cut_goes_on_and_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    trial = trial_in(tmp_path)
    whole = digests(drawn(trial, tmp_path).path)
    out = tmp_path / "stores" / output_name(trial)
    out.rename(tmp_path / "whole")
    asked: list[tuple[int, int]] = []

    def counted(network: Any, recipe: Any, number: int, first: int, **how: Any) -> np.ndarray:
        if len(asked) == after:
            raise Killed
        asked.append((number, first))
        return draw_block(network, recipe, number, first, **how)

    monkeypatch.setattr(stage, "draw_block", counted)
    with pytest.raises(Killed):
        drawn(trial, tmp_path)
    assert not Store.exists(out)
    kept = len([*out.glob("*.arrow")])
    asked.clear()
    after = 99
    drawn(trial, tmp_path)
    assert digests(out) == whole
    blocks = [(number, first) for number in (0, 1) for first in range(0, N, BLOCK)]
    rows = np.cumsum([min(BLOCK, N - first) for _, first in blocks])
    assert asked == [block for block, end in zip(blocks, rows, strict=True) if end > kept * BLOCK]
    asked.clear()
    drawn(trial, tmp_path)
    assert not asked, "what is whole is not drawn again"


def test_two_ranks_draw_what_one_does(tmp_path: Path, two_ranks: Ranks) -> None:
    one = trial_in(tmp_path)
    x = drawn(one, tmp_path).read().x.numpy()
    (tmp_path / "stores" / output_name(one)).rename(tmp_path / "one")
    both = two_ranks(run_on, one, tmp_path)
    assert both[0] == both[1]
    assert both[0][-2:] == [2 * N] * 2, "all is drawn before they meet"
    made = Artifacts(tmp_path).open_store(output_name(one))
    np.testing.assert_array_equal(made.read().x.numpy(), x)
    assert made.labels.tolist() == [0] * N + [1] * N


def run_on(world: World, trial: DrawTrial, storage: Path) -> list[float]:
    return [progress.metrics["rows"] for progress in run_trial(trial, world, storage)]


def test_its_key_is_of_what_decides_the_images(tmp_path: Path) -> None:
    trial = trial_in(tmp_path)
    assert parse_trial(trial.model_dump(mode="json")).key == trial.key
    other = {"arm": "x", "ranks": 4}
    assert trial.model_copy(update=other).key == trial.key
    changes: list[dict[str, Any]] = [
        {"bundle": "b"}, {"numbers": (1, 0)}, {"n": 41}, {"side": 32}, {"steps": 3},
        {"output": (0.0, 1.0)}, {"channels": 3}, {"classes": ("a", "b")},
    ]  # fmt: skip
    assert len({trial.model_copy(update=change).key for change in changes} | {trial.key}) == 9
    moved = write_bundle(tmp_path / "moved")
    ((again, _),) = draws_of(of_bundle(tmp_path, moved, side=SIDE))
    assert again.bundle == trial.bundle, "where it lies decides nothing"


def test_a_bundle_that_fails_is_a_trial_that_failed(tmp_path: Path) -> None:
    """The arm and the reason are told, and whatever wants its rows is not run."""
    write_real(tmp_path)
    bundle = write_bundle(tmp_path / "bundle", constant=float("nan"), image_size=SIZE)
    spec = of_bundle(tmp_path, bundle)
    given, (outcome,), _ = brought(spec)
    assert outcome.status == "failed"
    assert outcome.error == (
        "configuration: arms.theirs.path: its network makes values that are no finite numbers; "
        "correct it and resume"
    )
    plan = plan_study(spec, SLICES, given=given)
    theirs = [trial for trial in plan.generate if trial.arm == "theirs"]
    assert len(theirs) == 6
    assert not any(has_inputs(trial, Artifacts(tmp_path)) for trial in theirs)


def test_what_is_there_is_not_drawn_again(tmp_path: Path) -> None:
    write_real(tmp_path)
    spec = of_bundle(tmp_path, write_bundle(tmp_path / "bundle", image_size=SIZE))
    given, (first,), _ = brought(spec)
    (name,) = set(given.values())
    drawn_to = tmp_path / "stores" / output_name(brought(spec)[2].trials[0])
    x = Artifacts(tmp_path).open_store(name).read().x
    # As in a run made before a trial drew: its rows, and nothing that they came from.
    drawn_to.rename(tmp_path / "away")
    again, outcomes, sweep = brought(spec)
    assert again == given
    assert (outcomes, sweep.trials) == ([], [])
    # Rows that are lost come from what was drawn; lost, too, it is drawn anew.
    (tmp_path / "stores" / name).rename(tmp_path / "rows")
    assert brought(spec)[0] == given
    assert first.result is not None
    assert (Artifacts(tmp_path).open_store(name).read().x == x).all()


@pytest.mark.parametrize(
    ("changes", "keys", "says"),
    [
        ({"network_def": None}, {}, r"arms\.theirs\.path: .*network_def: wants a mapping"),
        ({"channels": 3}, {}, r"arms\.theirs\.path: .*in_channels 3, and a grey image wants 1"),
        ({}, {"numbers": [0]}, r"arms\.theirs\.numbers: names 1 classes, and the study has 2"),
        ({}, {"numbers": [0, 2]}, r"arms\.theirs\.path: .*knows the classes 0 to 1"),
        ({}, {"intensity": None}, r"arms\.theirs\.intensity: the study's scans are volumes"),
        ({}, {"side": 15}, r"arms\.theirs\.path: its network makes no images of 15 pixels"),
        ({"noise_scheduler": {"_target_": "DDIMScheduler", "num_train_timesteps": 4}},
         {"steps": 5}, r"arms\.theirs\.path: its sampler does not make 5 steps"),
        ({"weights": b"no checkpoint"}, {}, r"arms\.theirs\.path: models/model\.pt: holds Python"),
    ],
)  # fmt: skip
def test_a_wrong_bundle_is_refused_before_anything_is_drawn(
    tmp_path: Path, changes: dict[str, Any], keys: dict[str, Any], says: str
) -> None:
    write_real(tmp_path)
    changes = dict(changes)
    weights = changes.pop("weights", None)
    bundle = write_bundle(tmp_path / "bundle", **changes)
    if weights is not None:
        (bundle / "models" / "model.pt").write_bytes(weights)
    with pytest.raises(UserError, match=says) as refused:
        brought(of_bundle(tmp_path, bundle, **keys))
    assert "\n" not in str(refused.value)
    assert not [*tmp_path.glob("stores/drawn-*")]


def test_a_folder_that_is_refused_is_told_before_anything_is_drawn(tmp_path: Path) -> None:
    write_real(tmp_path)
    spec = of_bundle(tmp_path, write_bundle(tmp_path / "bundle", image_size=SIZE))
    own = write_folder(tmp_path / "few", pictures(4))
    few = of_folder(tmp_path, own).arms["theirs"]
    with pytest.raises(UserError, match=r"arms\.few\.path: 2 rows of class LGG"):
        brought(spec.model_copy(update={"arms": {**spec.arms, "few": few}}))
    assert not [*tmp_path.glob("stores/drawn-*")]


def test_copies_among_what_is_drawn_refuse_the_arm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slices = write_real(tmp_path, 128, images=True)
    copied = slices.split("eval", 0).read([0]).x.numpy() / 300
    spec = of_bundle(tmp_path, write_bundle(tmp_path / "bundle"), side=128, steps=1)
    spec = spec.model_copy(update={"data": spec.data.model_copy(update={"image_size": 128})})

    def leaky(*args: Any, **how: Any) -> np.ndarray:
        x = draw_block(*args, **how)
        x[1] = copied
        return x

    monkeypatch.setattr(stage, "draw_block", leaky)
    with pytest.raises(UserError, match=r"arms\.theirs\.path: .* of 24 images are copies of pat"):
        brought(spec)


def test_it_is_planned_and_costed(tmp_path: Path) -> None:
    """In numbers that can be done by hand: blocks of 16, each in as many steps."""
    write_real(tmp_path)
    spec = of_bundle(tmp_path, write_bundle(tmp_path / "bundle"), side=SIDE, steps=7)
    two = {**spec.arms, "same": spec.arms["theirs"]}
    draws = [trial for trial, _ in draws_of(spec.model_copy(update={"arms": two}))]
    (trial,) = draws
    assert (trial.n, trial.rows, trial.steps, trial.side) == (12, 24, 7, SIDE)
    _, plan = whole_plan(spec, draws)
    title, wave = next(plan.waves())
    assert (title, wave) == ("draw", (trial,))
    assert plan.trials()[0] == trial
    assert bytes_to_write(spec, draws, 0) == 24 * SIDE * SIDE * 4
    small = small_of(spec)
    small = replace(
        small,
        kinds={**small.kinds, kind_of(trial): KIND},
        wave_s={**small.wave_s, "draw": 4.0},
        warming_s={**small.warming_s, "draw": 0.0},
    )
    longer = trial.model_copy(update={"n": 100, "ranks": 2})
    assert trial_seconds(longer, KIND, small, spec, 1) == 2 + 7 * 7 * 1 + 3
    plan = replace(plan, extract=(), generate=(), classify=())
    cost = estimate(plan, small, spec, 100, False, 0.0).stages[0]
    assert (cost.stage, cost.trials) == ("draw", 1)
    assert cost.disk_bytes == KIND.folder_bytes + 24 * SIDE * SIDE * 4

    few = first_blocks(longer)
    assert (few.rows, few.steps, few.numbers) == (2 * BLOCK * 2, 1, (0,))
    line: dict[str, Any] = {"metrics": {"plan/cpu_s": 1.0, "plan/ram": 1.0}, "save_seconds": 0.0}
    lines = [{**line, "seconds": seconds} for seconds in (5.0, 2.0, 0.5)]
    folder = tmp_path / "run"
    TrialFolder(folder, few.key).claim(few)
    kind = measure(few, lines, folder, Artifacts(tmp_path))
    assert (kind.first_s, kind.epoch_s, kind.last_s) == (3.0, 2.0, 0.5)
