"""A MONAI bundle as a generator: what it makes, and that nothing in it is ever run."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from medaug.arms.monai_bundle import (
    BLOCK,
    build,
    check_recipe,
    draw_block,
    read_bundle,
    tensors_of,
)
from medaug.errors import UserError
from medaug.seeding import generator
from medaug.spec import build_study
from medaug.spec.arms import ARM_CONFIGS
from medaug.storage.artifacts import Artifacts
from tests.audit.small_runs import SIZE
from tests.experiment.test_given import brought, of_folder, write_real
from tests.extras import needs_monai

pytestmark = needs_monai

NETWORK = {
    "_target_": "DiffusionModelUNet",
    **{"spatial_dims": 2, "in_channels": "@channels_in", "out_channels": 1, "num_res_blocks": 1},
    **{"channels": [8, 8], "attention_levels": [False, False], "norm_num_groups": 4},
    **{"num_head_channels": 4, "num_class_embeds": 2},
}
FLOW = {"_target_": "monai.networks.schedulers.RFlowScheduler", "num_train_timesteps": 1000}
CONFIG = {
    "imports": ["$import os"],  # what MONAI would run, and medaug does not look at
    "run": ["$@evaluator.run()"],
    "channels_in": 1,
    "network_def": NETWORK,
    "noise_scheduler": FLOW,
    "num_inference_steps": 2,
}
SHIFT = 0.25


def network(channels: int = 1) -> torch.nn.Module:
    from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet

    torch.manual_seed(0)
    arguments = {k: v for k, v in NETWORK.items() if k != "_target_"}
    return DiffusionModelUNet(
        **arguments | dict.fromkeys(("in_channels", "out_channels"), channels)
    )


def write_bundle(
    path: Path, *, constant: float | None = None, channels: int = 1, **changes: Any
) -> Path:
    """A bundle whose network was never trained; its output is ``constant`` where that is given."""
    (path / "configs").mkdir(parents=True, exist_ok=True)
    (path / "models").mkdir(exist_ok=True)
    if channels > 1:
        of_colour = {"channels_in": channels, "network_def": NETWORK | {"out_channels": channels}}
        changes = of_colour | changes
    (path / "configs" / "inference.json").write_text(json.dumps(CONFIG | changes))
    (path / "configs" / "metadata.json").write_text(json.dumps({"version": "0.1.0"}))
    model = network(channels)
    for name, weight in model.named_parameters():
        with torch.no_grad():
            if name.startswith("out.") and constant is not None:
                weight.fill_(constant if name.endswith("conv.bias") else 0.0)
            elif not weight.any():
                weight.normal_(0, 0.3)  # MONAI starts the last layer of every block at zero
    torch.save({"network": model.state_dict(), "epoch": 3}, path / "models" / "model.pt")
    return path


def rows(path: Path, n: int = 4, numbers: tuple[int, ...] = (0, 1)) -> np.ndarray:
    bundle = read_bundle(path)
    check_recipe(bundle.recipe, numbers, 1, 16, bundle.steps)
    network = build(bundle.recipe, tensors_of(bundle))
    how: dict[str, Any] = {"channels": 1, "side": 16, "steps": bundle.steps, "output": (-1.0, 1.0)}
    return np.concatenate(
        [
            draw_block(network, bundle.recipe, number, first, **how)[: n - first]
            for number in numbers
            for first in range(0, n, BLOCK)
        ]
    )


def test_a_constant_velocity_moves_noise_by_itself(tmp_path: Path) -> None:
    """Along a rectified flow from t = 1 to 0 a velocity v moves x to x + v."""
    x = rows(write_bundle(tmp_path, constant=SHIFT), n=20)
    for label in (0, 1):
        for first, count in ((0, 16), (16, 4)):
            noise = torch.randn((16, 1, 16, 16), generator=generator("monai_bundle", label, first))
            wanted = ((noise + SHIFT + 1) / 2).clamp(0, 1)[:count].numpy()
            got = x[20 * label + first : 20 * label + first + count]
            np.testing.assert_allclose(got, wanted, atol=1e-5)


@pytest.mark.parametrize("scheduler", ["RFlowScheduler", "DDIMScheduler", "DDPMScheduler"])
def test_more_rows_begin_with_the_same_ones(tmp_path: Path, scheduler: str) -> None:
    schedule = {"_target_": scheduler, "num_train_timesteps": 100}
    bundle = write_bundle(tmp_path, noise_scheduler=schedule)
    few, many = rows(bundle, 3), rows(bundle, 18)
    np.testing.assert_array_equal(few[:3], many[:3])
    np.testing.assert_array_equal(few[3:], many[18:21])
    assert 0 <= few.min() < few.max() <= 1


def test_the_class_reaches_the_network(tmp_path: Path) -> None:
    bundle = read_bundle(write_bundle(tmp_path))
    from medaug.arms.monai_bundle import _sampled

    model = build(bundle.recipe, tensors_of(bundle))
    x = torch.randn((2, 1, 16, 16), generator=generator("x"))
    with torch.inference_mode():
        made = [
            _sampled(model, bundle.recipe, 2, x, number, torch.Generator()) for number in (0, 1)
        ]
    assert (made[0] - made[1]).abs().max() > 1e-3


def test_its_key_is_of_all_that_decides(tmp_path: Path) -> None:
    one = read_bundle(write_bundle(tmp_path / "a"))
    same = write_bundle(tmp_path / "b")
    (same / "configs" / "inference.yaml").write_text(yaml.safe_dump(CONFIG))
    (same / "configs" / "inference.json").unlink()
    assert read_bundle(same).key == one.key
    keys = {one.key, read_bundle(write_bundle(tmp_path / "c", num_inference_steps=3)).key}
    keys.add(read_bundle(write_bundle(tmp_path / "d", constant=SHIFT)).key)
    assert len(keys) == 3
    save_file(network().state_dict(), same / "models" / "model.safetensors")
    (same / "models" / "model.pt").unlink()
    assert rows(same).shape == (8, 1, 16, 16)


class Marker:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network_def": NETWORK | {"channels": "$__import__('os').system('touch M')"}},
         "network_def.channels: '\\$__import__.* is code, and medaug runs none of a bundle"),
        ({"channels_in": "$open('M', 'w')"}, "network_def.in_channels: .* is code"),
        ({"network_def": "%other.json::network_def"}, "network_def: .* is code"),
        ({"network_def": NETWORK | {"_target_": "os.system"}}, "makes a os.system; medaug builds"),
        ({"network_def": NETWORK | {"_target_": "evil.DiffusionModelUNet"}}, "makes a evil"),
        ({"network_def": NETWORK | {"_requires_": "$open('M', 'w')"}}, "_requires_: .* is code"),
        ({"network_def": NETWORK | {"_requires_": "x"}}, "_requires_: is for MONAI's own engine"),
        ({"channels_in": "@channels_in"}, "refers to itself"),
        ({"channels_in": "@nowhere"}, "refers to nothing"),
        ({"num_inference_steps": "many"}, "num_inference_steps: wants a number"),
        ({"noise_scheduler": None}, "noise_scheduler: wants a mapping with a _target_"),
    ],
)  # fmt: skip
def test_code_in_a_bundle_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_bundle(tmp_path / "bundle", **changes)
    with pytest.raises(UserError, match=message):
        read_bundle(path)
    assert not (tmp_path / "M").exists()


def test_a_pickle_for_weights_is_refused_and_not_run(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "bundle")
    for planted in (pickle.dumps(Marker(tmp_path / "M")), None):
        if planted is None:
            torch.save({"network": Marker(tmp_path / "M")}, path / "models" / "model.pt")
        else:
            (path / "models" / "model.pt").write_bytes(planted)
        with pytest.raises(UserError, match=r"model\.pt: (holds Python objects|cannot be read)"):
            rows(path)
        assert not (tmp_path / "M").exists()


@pytest.mark.parametrize(
    ("network_def", "message"),
    [
        (NETWORK | {"num_class_embeds": None}, "takes no class"),
        (NETWORK | {"spatial_dims": 3}, "spatial_dims 3, and a grey image wants 2"),
        (NETWORK | {"channels": [8, 16]}, "cannot be built"),
        (NETWORK | {"num_class_embeds": 1}, "knows the classes 0 to 0"),
    ],
)
def test_what_makes_no_grey_images_by_class_is_told(
    tmp_path: Path, network_def: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        rows(write_bundle(tmp_path, network_def=network_def))


def test_its_rows_are_judged_like_those_of_a_folder(tmp_path: Path) -> None:
    """Drawn once into a store that is named by the bundle, compared with who is scored."""
    write_real(tmp_path)
    bundle = write_bundle(tmp_path / "bundle", image_size=SIZE)
    public = {"public": "open scans"}
    spec = of_folder(tmp_path, bundle, kind="monai_bundle", made_from=public)
    given = brought(spec)
    (name,) = set(given.values())  # one set serves all folds and seeds
    store = Artifacts(tmp_path).open_store(name)
    n = max(spec.sweep.n_synthetic)
    assert np.bincount(store.labels).tolist() == [n // 2, n // 2]
    assert store.schema.shape == (1, SIZE, SIZE)
    audit = json.loads((spec.storage / spec.name / "given.json").read_text())
    assert audit[name]["images"] == n
    assert audit[name]["compared_with"] > 0
    assert brought(spec) == given
    write_bundle(bundle, constant=SHIFT, image_size=SIZE)
    assert brought(spec) != given


@pytest.mark.parametrize("as_array", [False, True])
def test_images_have_the_channels_of_the_study(tmp_path: Path, as_array: bool) -> None:
    write_real(tmp_path, images=True, channels=3)
    public: dict[str, Any] = {"made_from": {"public": "open scans"}, "intensity": None}
    bundle = write_bundle(tmp_path / "bundle", channels=3, image_size=SIZE)
    if as_array:
        x = np.random.default_rng(0).random((32, 3, 2 * SIZE, 2 * SIZE), np.float32)
        np.save(tmp_path / "rows.npy", x)
        np.save(tmp_path / "rows_labels.npy", np.arange(32) % 2)
        spec = of_folder(tmp_path, tmp_path / "rows.npy", **public)
    else:
        spec = of_folder(tmp_path, bundle, kind="monai_bundle", **public)
    (name,) = set(brought(spec).values())
    store = Artifacts(tmp_path).open_store(name)
    assert store.schema.shape == (3, SIZE, SIZE)
    assert store.manifest["extra"]["pictures"]
    if as_array:
        wanted = x.reshape(32, 3, SIZE, 2, SIZE, 2).mean((3, 5))
        np.testing.assert_allclose(store.read().x.numpy(), wanted, atol=1e-3)
    else:
        grey = write_bundle(tmp_path / "grey", image_size=SIZE)
        other = of_folder(tmp_path, grey, kind="monai_bundle", **public)
        with pytest.raises(UserError, match="in_channels 1, and an image of 3 channels wants 3"):
            brought(other)


def test_one_bundle_serves_no_fold_of_the_study_itself(tmp_path: Path) -> None:
    write_real(tmp_path)
    bundle = write_bundle(tmp_path / "bundle", image_size=SIZE)
    spec = of_folder(tmp_path, bundle, kind="monai_bundle", made_from="study_train")
    with pytest.raises(UserError, match="made_from: study_train wants rows of each fold's own"):
        brought(spec)


def test_the_path_may_stand_alone(tmp_path: Path) -> None:
    body = {
        **{"name": "s", "segmenter": None, "features": None, "storage": str(tmp_path)},
        **{"data": {"phantom": {"patients": 12}, "image_size": 32}},
        "arms": {"none": {}, "monai_bundle": str(tmp_path / "bundle")},
    }
    arm = build_study(body, ARM_CONFIGS).arms["monai_bundle"]
    assert (arm.kind, arm.made_from) == ("monai_bundle", "unknown")  # type: ignore[attr-defined]
