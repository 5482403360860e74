"""Images of a MONAI bundle: a class-conditional diffusion model that another tool has trained.

A bundle's configuration is a program: MONAI evaluates what begins with ``$`` and imports whatever
``_target_`` names. Here it is data. A network and a sampler of the lists below are built from plain
values, weights are read without unpickling, the loop is ours, and nothing else of it is looked at.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medaug.arms.folder import FolderArm
from medaug.errors import IntegrityError, UserError, lines_of
from medaug.regular import open_regular
from medaug.seeding import generator
from medaug.spec.base import signature
from medaug.spec.folder import MonaiBundleSpec
from medaug.storage.files import sha256_of

NETWORKS = ("DiffusionModelUNet",)
SCHEDULERS = ("DDIMScheduler", "DDPMScheduler", "RFlowScheduler")
NETWORK_IDS = ("network_def", "network", "diffusion_def", "unet_def")
SCHEDULER_IDS = ("scheduler", "noise_scheduler")
WEIGHTS = ("model.safetensors", "model.pt")
INNER = ("state_dict", "network", "model", "net", "unet", "unet_state_dict")
"""Where a checkpoint with more than the weights keeps them."""
STEPS = 50
BLOCK = 16
"""Images at a time. A function of nothing: the last bits of a product depend on the batch."""
MOST_BYTES = 1 << 20
"""Of a configuration."""
DEPTH = 20


class MonaiBundleArm(FolderArm):
    """The images that a bundle has made, taken like those of arm ``folder``."""

    Config = MonaiBundleSpec
    config: MonaiBundleSpec


@dataclass(frozen=True)
class Recipe:
    """A network and a sampler, in plain values."""

    network: Mapping[str, Any]
    """Arguments of MONAI's ``DiffusionModelUNet``."""
    scheduler: str
    """One of :data:`SCHEDULERS`."""
    schedule: Mapping[str, Any]
    """Its arguments."""


def recipe_of(about: Mapping[str, Any], name: str) -> Recipe:
    """The recipe that was written down as ``about`` in the model ``name``; raises IntegrityError
    where it is none."""
    parts = [about.get("network"), about.get("schedule")]
    if about.get("scheduler") not in SCHEDULERS or not all(isinstance(p, dict) for p in parts):
        raise IntegrityError(f"models/{name}/config.json: is none of a bundle; delete the folder")
    return Recipe(parts[0], str(about["scheduler"]), parts[1])  # type: ignore[arg-type]


@dataclass(frozen=True)
class Bundle:
    """What a bundle says of its network and sampler."""

    recipe: Recipe
    weights: Path
    steps: int
    side: int | None
    key: str
    """Hash of all that decides what it makes, the weights included."""


def read_bundle(path: Path) -> Bundle:
    """The bundle in the folder ``path``; nothing of it is run.

    Raises:
        UserError: a file is missing or unreadable, or it holds something that only running it could
            tell.
    """
    name, config = _config(path)
    try:
        metadata = json.loads(_text(path / "configs" / "metadata.json"))
    except ValueError:
        raise UserError("configs/metadata.json: is no JSON; write it again") from None
    found = [path / "models" / each for each in WEIGHTS if (path / "models" / each).is_file()]
    if not found:
        raise UserError(f"models: holds neither {' nor '.join(WEIGHTS)}; add one")
    kind, network = _component(config, NETWORK_IDS, NETWORKS, "networks", name)
    scheduler, schedule = _component(config, SCHEDULER_IDS, SCHEDULERS, "networks", name)
    steps = _number(config, "num_inference_steps", name) or STEPS
    side = _number(config, "image_size", name)
    try:
        weights = sha256_of(found[0])
    except (OSError, IntegrityError):
        raise UserError(f"models/{found[0].name}: cannot be read; copy it again") from None
    about = {"network": [kind, network], "scheduler": [scheduler, schedule], "weights": weights}
    key = signature({**about, "steps": steps, "side": side, "metadata": metadata})
    return Bundle(Recipe(network, scheduler, schedule), found[0], steps, side, key)


def check_recipe(
    recipe: Recipe, numbers: Sequence[int], channels: int, side: int, steps: int
) -> None:
    """That the network makes images (``channels``, ``side``, ``side``) of the classes ``numbers``
    in so many ``steps``. No weight is read and nothing is computed.

    Raises:
        UserError: it does not, or there is no such network or sampler.
    """
    known = recipe.network.get("num_class_embeds")
    if not isinstance(known, int):
        raise UserError("its network takes no class (num_class_embeds); bring one that does")
    if max(numbers) >= known:
        raise UserError(f"its network knows the classes 0 to {known - 1}; correct 'numbers'")
    wanted = {"spatial_dims": 2, "in_channels": channels, "out_channels": channels}
    wanted["with_conditioning"] = False
    image = f"an image of {channels} channels" if channels > 1 else "a grey image"
    for key, value in wanted.items():
        if (got := recipe.network.get(key, value)) != value:
            raise UserError(f"its network has {key} {got!r}, and {image} wants {value!r}")
    try:
        _sampler(recipe, steps, channels * side**2)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        line = lines_of(error)[0]
        raise UserError(f"its sampler does not make {steps} steps: {line}") from None
    with torch.device("meta"), torch.inference_mode():
        network = _network(recipe)
        x, one = torch.zeros(1, channels, side, side), torch.zeros(1)
        try:
            network(x, timesteps=one, class_labels=one.long())
        except (RuntimeError, ValueError, AssertionError) as error:
            line = lines_of(error)[0]
            raise UserError(f"its network makes no images of {side} pixels: {line}") from None


def tensors_of(bundle: Bundle) -> dict[str, torch.Tensor]:
    """The network's weights, by the names and in the types that it has them.

    Raises:
        UserError: the file is no checkpoint, or of another network.
    """
    return build(bundle.recipe, _state(bundle.weights)).state_dict()


def build(recipe: Recipe, tensors: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    """The network with its weights.

    Raises:
        UserError: there is no such network, or the weights are another one's.
    """
    network = _network(recipe)
    try:
        network.load_state_dict(tensors)
    except (TypeError, ValueError, RuntimeError, KeyError) as error:
        raise UserError(f"its network cannot be built: {lines_of(error)[0]}") from None
    return network.eval()


@torch.inference_mode()
def draw_block(
    network: torch.nn.Module,
    recipe: Recipe,
    number: int,
    first: int,
    *,
    channels: int,
    side: int,
    steps: int,
    output: tuple[float, float],
) -> np.ndarray:
    """Images ``first`` to ``first + BLOCK`` of the class ``number``: (BLOCK, C, S, S) float32 in
    [0, 1], made where the network is.

    They are a function of the class and of ``first``, a multiple of :data:`BLOCK`, alone. cuDNN's
    algorithms are not timed here: another process could choose others, and with them other bits.

    Raises:
        UserError: values are no finite numbers.
    """
    dice = generator("monai_bundle", number, first)
    noise = torch.randn((BLOCK, channels, side, side), generator=dice)
    device = next(network.parameters()).device
    with torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True,
        allow_tf32=torch.backends.cudnn.allow_tf32,
    ):  # fmt: skip
        x = _sampled(network, recipe, steps, noise.to(device), number, dice)
    black, white = output
    x = ((x - black) / (white - black)).clamp(0, 1)
    if not torch.isfinite(x).all():
        raise UserError("its network makes values that are no finite numbers")
    return x.float().cpu().numpy()


def _network(recipe: Recipe) -> torch.nn.Module:
    from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet

    try:
        return DiffusionModelUNet(**recipe.network)
    except (TypeError, ValueError, RuntimeError, KeyError) as error:
        raise UserError(f"its network cannot be built: {lines_of(error)[0]}") from None


def _sampler(recipe: Recipe, steps: int, values: int) -> Any:
    """The scheduler, set to ``steps`` of images of so many ``values`` each."""
    from monai.networks import schedulers

    scheduler: Any = getattr(schedulers, recipe.scheduler)(**recipe.schedule)
    size = {"input_img_size_numel": values} if recipe.scheduler == "RFlowScheduler" else {}
    scheduler.set_timesteps(num_inference_steps=steps, **size)
    return scheduler


def _sampled(
    network: torch.nn.Module,
    recipe: Recipe,
    steps: int,
    x: torch.Tensor,
    number: int,
    dice: torch.Generator,
) -> torch.Tensor:
    """Noise (N, C, S, S) to images."""
    scheduler = _sampler(recipe, steps, x[0].numel())
    times = [float(t) for t in scheduler.timesteps]
    numbers = torch.full((len(x),), number, device=x.device)
    for t, following in zip(times, [*times[1:], 0.0], strict=True):
        made = network(x, timesteps=torch.full((len(x),), t, device=x.device), class_labels=numbers)
        if recipe.scheduler == "RFlowScheduler":
            x, _ = scheduler.step(made, t, x, following)
        elif recipe.scheduler == "DDPMScheduler":
            x, _ = scheduler.step(made.cpu(), int(t), x.cpu(), generator=dice)
            x = x.to(made.device)
        else:
            x, _ = scheduler.step(made, int(t), x)
    return x


def _config(path: Path) -> tuple[str, Mapping[str, Any]]:
    import yaml  # a bare GPU machine has none, and imports all arms

    for name in ("inference.json", "inference.yaml", "inference.yml"):
        if (path / "configs" / name).is_file():
            try:
                config = yaml.safe_load(_text(path / "configs" / name))  # which reads JSON, too
            except (yaml.YAMLError, RecursionError):
                raise UserError(f"configs/{name}: is neither JSON nor YAML; mend it") from None
            if not isinstance(config, Mapping):
                raise UserError(f"configs/{name}: wants a mapping")
            return f"configs/{name}", config
    raise UserError("is no MONAI bundle: configs/inference.json is missing")


def _text(path: Path) -> str:
    try:
        with open_regular(path) as file:
            text = file.read(MOST_BYTES + 1)
        if len(text) > MOST_BYTES:
            raise UserError(f"configs/{path.name}: is larger than a configuration")
        return text.decode()
    except (OSError, UnicodeDecodeError):
        raise UserError(f"configs/{path.name}: is missing or no text; a bundle has it") from None


def _component(
    config: Mapping[str, Any], ids: Sequence[str], known: Sequence[str], room: str, file: str
) -> tuple[str, dict[str, Any]]:
    """(class, arguments) of the first of ``ids`` that ``config`` has."""
    name = next((each for each in ids if each in config), None)
    if name is None:
        raise UserError(f"{file}: has no {' or '.join(ids)}; add one")
    body = _plain(config, config[name], f"{file}: {name}")
    if not isinstance(body, dict) or "_target_" not in body:
        raise UserError(f"{file}: {name}: wants a mapping with a _target_")
    target = str(body.pop("_target_"))
    module, _, kind = target.rpartition(".")
    own = not module or module == "monai" or module.startswith(f"monai.{room}")
    if kind not in known or not own:
        raise UserError(f"{file}: {name}: makes a {target}; medaug builds {', '.join(known)} only")
    if odd := sorted(key for key in body if not key.isidentifier() or key.startswith("_")):
        raise UserError(f"{file}: {name}.{odd[0]}: is for MONAI's own engine; leave it out")
    return kind, body


def _plain(config: Mapping[str, Any], value: Any, where: str, depth: int = 0) -> Any:
    """``value`` with its references (``@name``, ``@name::part``) filled in."""
    if depth > DEPTH:
        raise UserError(f"{where}: refers to itself")
    if isinstance(value, Mapping):
        return {str(k): _plain(config, v, f"{where}.{k}", depth + 1) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(config, v, f"{where}.{i}", depth + 1) for i, v in enumerate(value)]
    if not isinstance(value, str) or value[:1] not in ("$", "@", "%"):
        return value
    if value[0] != "@":
        raise UserError(
            f"{where}: '{value[:40]}' is code, and medaug runs none of a bundle; write the value"
        )
    found: Any = config
    for part in value[1:].replace("#", "::").split("::"):
        try:
            found = found[int(part)] if isinstance(found, list) else found[part]
        except (KeyError, IndexError, ValueError, TypeError):
            raise UserError(f"{where}: '{value[:40]}' refers to nothing; write the value") from None
    return _plain(config, found, where, depth + 1)


def _number(config: Mapping[str, Any], key: str, file: str) -> int | None:
    value = _plain(config, config.get(key), f"{file}: {key}")
    if value is not None and (not isinstance(value, int) or not 1 <= value <= 1024):
        raise UserError(f"{file}: {key}: wants a number from 1 to 1024, got {value!r}")
    return value


def _state(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint. Raises UserError where it holds more than plain values."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        body = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError, OSError) as error:
        if isinstance(error, pickle.UnpicklingError):
            raise UserError(
                f"models/{path.name}: holds Python objects, which could run code; save the "
                "network's state_dict()"
            ) from None
        raise UserError(f"models/{path.name}: cannot be read; copy it again") from None
    inner = next((body[key] for key in INNER if isinstance(body.get(key), dict)), body)
    return dict(inner)
