"""Models of the library transformers, made and saved here: nothing is downloaded."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from medaug.encoders import encoder_of
from medaug.encoders import transformers as ours
from medaug.errors import EnvironmentFault, UserError
from medaug.spec.encoder import TransformersSpec
from medaug.store import Store
from medaug.train.world import World
from tests.encoders.image_stores import pictures, slice_store

HERE = World.single()
needs_library = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None,
    reason="no transformers: pip install 'medaug[transformers]'",
)


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return slice_store(tmp_path_factory.mktemp("images") / "slices")


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny ViT as RAD-DINO's folder has it: weights, configuration, what to normalise with."""
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    tiny = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = ViTConfig(**tiny, intermediate_size=32, image_size=32, patch_size=8)
    folder = tmp_path_factory.mktemp("models") / "vit"
    ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    preprocessing = {"image_mean": [0.53, 0.53, 0.53], "image_std": [0.25, 0.26, 0.27]}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing))
    return folder


def spec(model: Path | str, **changes: Any) -> TransformersSpec:
    return TransformersSpec.model_validate({"model": str(model), "public": "phantoms"} | changes)


@needs_library
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_numbers_are_the_models(slices: Store, vit: Path, pooling: str) -> None:
    from transformers import ViTModel

    encoder = encoder_of(spec(vit, pooling=pooling)).open(slices, HERE)
    x = torch.from_numpy(pictures(11, size=32))
    model = ViTModel.from_pretrained(vit, add_pooling_layer=False).eval()
    mean, std = torch.tensor(0.53), torch.tensor([0.25, 0.26, 0.27]).view(1, 3, 1, 1)
    with torch.inference_mode():
        state = model((x.repeat(1, 3, 1, 1) - mean) / std).last_hidden_state
    expected = state[:, 0] if pooling == "cls" else state.mean(1)
    torch.testing.assert_close(encoder.encode(x), expected, rtol=1e-4, atol=1e-5)
    assert encoder.dim == 16
    assert torch.equal(encoder.encode(x[3:4]), encoder.encode(x)[3:4])


@needs_library
def test_name_and_lineage_go_by_the_content_of_the_folder(vit: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(vit, tmp_path / "copy")
    one, two = (encoder_of(spec(folder)) for folder in (vit, tmp_path / "copy"))
    assert one.name == two.name
    assert one.lineage == two.lineage
    assert one.lineage.startswith("public: phantoms, sha256 ")
    preprocessing = tmp_path / "copy" / "preprocessor_config.json"
    preprocessing.write_text(preprocessing.read_text().replace("0.25", "0.5"))
    assert encoder_of(spec(tmp_path / "copy")).name != one.name
    hub = spec("microsoft/rad-dino", revision="a" * 40)
    assert encoder_of(hub).lineage == "public: phantoms, microsoft/rad-dino at aaaaaaaaaaaa"


@needs_library
def test_a_model_that_lacks_a_weight_is_refused(slices: Store, vit: Path, tmp_path: Path) -> None:
    """The library would fill it with random numbers."""
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(vit, tmp_path / "vit")
    file = tmp_path / "vit" / "model.safetensors"
    tensors = load_file(file)
    gone = next(name for name in tensors if "weight" in name and "layer" in name)
    save_file({k: v for k, v in tensors.items() if k != gone}, file, {"format": "pt"})
    with pytest.raises(UserError, match="lacks weights, first"):
        encoder_of(spec(tmp_path / "vit")).open(slices, HERE)


@needs_library
def test_a_convolutional_model_and_a_model_of_words(slices: Store, tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel, ResNetConfig, ResNetModel

    widths = {"embedding_size": 8, "hidden_sizes": [8, 8, 16, 24], "depths": [1, 1, 1, 1]}
    ResNetModel(ResNetConfig(**widths, layer_type="basic")).save_pretrained(tmp_path / "resnet")
    encoder = encoder_of(spec(tmp_path / "resnet", image_size=64)).open(slices, HERE)
    assert encoder.encode(slices.read([0, 1]).x).shape == (2, 24)
    tiny = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 10}
    BertModel(BertConfig(**tiny, intermediate_size=8)).save_pretrained(tmp_path / "bert")
    with pytest.raises(UserError, match="takes input_ids, not images"):
        encoder_of(spec(tmp_path / "bert")).open(slices, HERE)


@needs_library
def test_pickled_weights_are_not_looked_at(vit: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((vit / "config.json").read_text())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"has no \.safetensors"):
        encoder_of(spec(tmp_path)).identity()


@needs_library
def test_a_hub_that_cannot_be_reached_is_one_line(
    slices: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    encoder = encoder_of(spec("nobody/nothing", revision="b" * 40))
    with pytest.raises(EnvironmentFault, match=r"nobody/nothing at b+ cannot be fetched") as error:
        encoder.open(slices, HERE)
    assert "\n" not in str(error.value)


def test_without_the_library_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    known = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "transformers" else known(name)
    )
    with pytest.raises(UserError, match=r"pip install 'medaug\[transformers\]'") as error:
        encoder_of(spec("microsoft/rad-dino", revision="a" * 40)).identity()
    assert "\n" not in str(error.value)
    assert ours.EXTRA in str(error.value)
