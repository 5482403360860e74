"""Running a network over slices and storing what it makes of each as the feature."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from medaug.data.normalisation import Normalisation
from medaug.models.layers import channels_innermost
from medaug.models.unet import UNet, tap_shape
from medaug.spec.study import FeatureSpec
from medaug.store import Provenance, Store, StoreSchema, StoreWriter
from medaug.train.checkpoint import Progress
from medaug.train.parts import write_in_parts
from medaug.train.precision import autocast
from medaug.train.segment import normalise
from medaug.train.world import World

SHARD_BYTES = 192 << 20


def encoder(
    unet: UNet, spec: FeatureSpec, normalisation: Normalisation, world: World
) -> Callable[[torch.Tensor], torch.Tensor]:
    """A function from raw images (N, C, S, S) to features (N, C, s, s), float32 on the device.

    Only the blocks that ``spec.tap`` needs are run; with ``spec.crop`` the whole network, for
    its mask (see :func:`crop_to_tumour`). The same function makes the stored features, so
    features of augmented images are comparable with them up to the store's rounding.
    """
    unet = channels_innermost(unet).to(world.device).eval()

    @torch.inference_mode()
    def encode(images_NCHW: torch.Tensor) -> torch.Tensor:
        x = normalise(images_NCHW.to(world.device), normalisation)
        with autocast(world, spec.precision):
            if spec.crop == "none":
                return unet.features(x, spec.tap).float()
            features, logits = _features_and_logits(unet, x, spec.tap)
        return crop_to_tumour(features.float(), logits > 0)

    return encode


def extract_features(
    unet: UNet,
    spec: FeatureSpec,
    slices: Store,
    normalisation: Normalisation,
    out: Path,
    world: World,
    *,
    provenance: Provenance,
    extra: dict[str, Any] | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> Iterator[Progress]:
    """Write block ``spec.tap`` of the U-Net for each of ``slices`` (see :func:`write_features`).

    Raises:
        UserError: a feature does not fit ``spec.dtype`` (fp16 ends at 65,504).
        EnvironmentFault: storage cannot take it.
    """
    return write_features(
        encoder(unet, spec, normalisation, world),
        StoreSchema(tap_shape(spec.tap, _base(unet), slices.schema.shape[-1]), spec.dtype),
        slices,
        out,
        world,
        batch_size=spec.batch_size,
        provenance=provenance,
        extra=extra,
        shard_bytes=shard_bytes,
    )


def write_features(
    encode: Callable[[torch.Tensor], torch.Tensor],
    schema: StoreSchema,
    slices: Store,
    out: Path,
    world: World,
    *,
    batch_size: int,
    provenance: Provenance,
    extra: dict[str, Any] | None = None,
    shard_bytes: int = SHARD_BYTES,
    change: Callable[[torch.Tensor, np.ndarray], torch.Tensor] | None = None,
) -> Iterator[Progress]:
    """Write the feature store ``out``, row for row of ``slices``.

    ``encode`` takes raw images (N, C, S, S) of at most ``batch_size`` rows to (N, *schema.shape);
    ``change`` is given them first, with the numbers of their rows (N,).
    Each rank streams its contiguous part of the rows, so memory does not grow with the cohort; what
    is yielded, and how it goes on when killed: :func:`medaug.train.parts.write_in_parts`.
    Labels, patients, volumes, slice numbers, tumour sizes, classes and splits are those of
    ``slices``; ``provenance`` says whose data ``encode`` has seen.

    Raises:
        UserError: a feature does not fit the schema's dtype.
        EnvironmentFault: storage cannot take it.
    """
    mine = np.arange(len(slices))[world.share(len(slices))]
    batches = [mine[start : start + batch_size] for start in range(0, len(mine), batch_size)]

    def append(writer: StoreWriter, i: int, skip: int) -> None:
        rows = batches[i]
        x = slices.read(rows).x
        features = encode(x if change is None else change(x.float(), rows))
        _write(features[skip:], slices, rows[skip:], writer)

    return write_in_parts(
        [*map(len, batches)],
        append,
        schema,
        out,
        world,
        rows=len(slices),
        provenance=provenance,
        classes=slices.classes,
        splits=slices.manifest["splits"],
        extra=extra,
        shard_bytes=shard_bytes,
    )


def _write(features: torch.Tensor, slices: Store, rows: np.ndarray, writer: StoreWriter) -> None:
    writer.write(
        # Contiguous on the device: the writer would transpose channels-last rows on the CPU.
        features.contiguous().cpu(),
        label=slices.labels[rows],
        patient=slices.patients[rows],
        volume=slices.volumes[rows],
        slice_index=slices.slice_index[rows],
        tumour_pixels=slices.tumour_pixels[rows],
    )


def _base(unet: UNet) -> int:
    return unet.out.in_channels


def _features_and_logits(
    unet: UNet, x_NCHW: torch.Tensor, tap: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Block ``tap`` and the mask's logits in one pass."""
    kept: list[torch.Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        kept.append(output)

    hook = unet.get_submodule(tap).register_forward_hook(keep)
    try:
        logits = unet(x_NCHW)
    finally:
        hook.remove()
    return kept[0], logits


def crop_to_tumour(features_NCHW: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Features inside the tumour's box, resized (bilinear) to the size of the whole map.

    Study A names "tumour crops" as future work without a recipe. Ours: the smallest square around
    the bounding box of the predicted mask (N, 1, H, W), at least one feature cell wide, sampled
    at the resolution of the map; beyond the image it is 0. A slice without a predicted tumour
    keeps its whole map.
    """
    mask = mask.squeeze(1)
    n, height, width = mask.shape
    x0, x1 = _extent(mask.any(1))
    y0, y1 = _extent(mask.any(2))
    # In the coordinates of affine_grid the image goes from -1 to 1 along each axis.
    scale = torch.maximum((x1 - x0) / width, (y1 - y0) / height)
    scale = scale.clamp(min=1 / features_NCHW.shape[-1])
    theta = torch.zeros(n, 2, 3, device=mask.device)
    theta[:, 0, 0] = theta[:, 1, 1] = scale
    theta[:, 0, 2] = (x0 + x1) / width - 1
    theta[:, 1, 2] = (y0 + y1) / height - 1
    whole = torch.eye(2, 3, device=mask.device)
    theta = torch.where(mask.flatten(1).any(1)[:, None, None], theta, whole)
    grid = F.affine_grid(theta, list(features_NCHW.shape), align_corners=False)
    return F.grid_sample(features_NCHW, grid, align_corners=False)


def _extent(line: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """First and one past the last True of each row of (N, L); undefined where there is none."""
    position = torch.arange(line.shape[1], device=line.device)
    first = torch.where(line, position, line.shape[1]).amin(1)
    last = torch.where(line, position, -1).amax(1)
    return first.float(), last.float() + 1
