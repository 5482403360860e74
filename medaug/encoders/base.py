"""What an encoder is: images of a slice store in, D numbers an image out.

``open`` reads the weights, looks at the slices and, where something has to be fitted, fits it to
the fold's training patients; then ``encode`` takes any images in the units of the slices. A new
encoder is one file with one subclass, and one line in ``medaug.encoders.ENCODERS``.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from medaug.encoders.intensity import Intensity, intensity_of, resized, three_channels, to_unit
from medaug.errors import IntegrityError, UserError
from medaug.regular import open_regular
from medaug.spec.base import signature
from medaug.spec.encoder import ImageEncoderSpec
from medaug.store import Provenance, Store
from medaug.train.world import World

RECIPE = 1
"""Raise when the same images and weights give other numbers."""

BLOCK = 8
"""Images that a network sees at a time, always so many: the last bits of a convolution depend on
the length of its batch. Of 4 to 32 this is the quickest on a core at 128 x 128."""


class Encoder(ABC):
    """A configuration, and how it turns images into numbers."""

    Config: ClassVar[type[ImageEncoderSpec]]
    fitted: ClassVar[bool]
    """True: fitted on a fold's training patients, one feature store a fold. False: frozen, so one
    store serves all folds."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self.fitted_on: tuple[str, ...] = ()
        """Patients (or images, see ``Store.units``) of this study that it was fitted to."""
        self.intensity: Intensity = config.intensity
        self._world: World | None = None

    def identity(self) -> dict[str, Any]:
        """All that decides the numbers, as JSON: the configuration and a hash of the weights.

        No network is built; files are hashed where the configuration does not hold their hash.
        Where something is wrong with the installation or the files, this says so before anything
        runs.

        Raises:
            UserError: a file or an extra is missing.
        """
        config = self.config.model_dump(mode="json", exclude={"path"})
        return {"recipe": RECIPE, "encoder": config, **self.weights()}

    @property
    def name(self) -> str:
        """``kind-`` and twelve hex digits of :meth:`identity`."""
        return f"{self.config.kind}-{signature(self.identity())}"

    @abstractmethod
    def weights(self) -> dict[str, Any]:
        """What identifies the weights beyond the configuration; {} where nothing does."""

    @property
    @abstractmethod
    def lineage(self) -> str:
        """Whose data it has seen, for the report: ``public: NAME, sha256 …``."""

    def provenance(self, config: str, parents: tuple[str, ...]) -> Provenance:
        """Of the rows that it makes, once it is open; ``config`` and ``parents`` are the stage's.

        Frozen networks have seen no patient of the study, as far as their ``public`` is true.
        """
        return Provenance("encode", config, parents, self.fitted_on, False, self.name)

    def open(self, slices: Store, world: World, fold: int | None = None) -> Self:
        """Make it ready for images of ``slices``, on the device of ``world``; returns itself.

        Sealed test patients are not looked at. ``fold`` is needed where ``fitted``.

        Raises:
            UserError: weights or an extra are missing, or have another architecture.
            IntegrityError: weights do not have the hash that was promised.
        """
        self.intensity = intensity_of(unsealed(slices), self.config.intensity)
        self._world = world
        self.load()
        if self.fitted:
            assert fold is not None, f"{self.config.kind} is fitted in a fold"
            train = slices.split("train", fold)
            self.fit(train)
            self.fitted_on = tuple(sorted(set(train.units.tolist())))
        return self

    @abstractmethod
    def load(self) -> None:
        """Read the weights, if there are any, to :attr:`device`."""

    def fit(self, train: Store) -> None:
        """Fit to the slices of a fold's training patients: for those that are ``fitted``."""
        raise NotImplementedError

    @property
    @abstractmethod
    def dim(self) -> int:
        """D, once it is open."""

    @torch.inference_mode()
    def encode(self, images_NCHW: Tensor) -> Tensor:
        """Float32 (N, D) on the device, of N images in the units of the slices, any channels.

        A row is a function of its image alone: not of those beside it, nor of how many.
        """
        assert self._world is not None, "open it first"
        rows = [self._block(images_NCHW[i : i + BLOCK]) for i in range(0, len(images_NCHW), BLOCK)]
        return torch.cat(rows) if rows else torch.empty(0, self.dim, device=self.device)

    @property
    def device(self) -> torch.device:
        assert self._world is not None
        return self._world.device

    def _block(self, images_NCHW: Tensor) -> Tensor:
        unit = to_unit(images_NCHW.to(self.device), self.intensity)
        filled = torch.cat([unit, unit.new_zeros(BLOCK - len(unit), *unit.shape[1:])])
        return self.encode_unit(filled)[: len(unit)].float()

    @abstractmethod
    def encode_unit(self, x_NCHW: Tensor) -> Tensor:
        """(BLOCK, D) of BLOCK images in [0, 1], each on its own."""


class FrozenNetwork(Encoder):
    """A network with weights from elsewhere; ``load`` sets ``network``."""

    fitted = False
    network: nn.Module
    side: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def encode_unit(self, x_NCHW: Tensor) -> Tensor:
        x = three_channels(resized(x_NCHW, self.side))
        mean, std = (x.new_tensor(v).view(1, 3, 1, 1) for v in (self.mean, self.std))
        return self.outputs(((x - mean) / std).contiguous(memory_format=torch.channels_last))

    @abstractmethod
    def outputs(self, x_NCHW: Tensor) -> Tensor:
        """(N, D) of normalised images (N, 3, side, side)."""

    def keep(self, network: nn.Module) -> None:
        """Take ``network`` to the device, in inference mode; nothing in it learns any more."""
        network = network.eval().requires_grad_(False)
        self.network = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def dim(self) -> int:
        with torch.inference_mode():
            shape = (BLOCK, 3, self.side, self.side)
            return self.outputs(torch.zeros(shape, device=self.device)).shape[1]


def tapped(network: nn.Module, x_NCHW: Tensor, taps: str) -> Tensor:
    """Means over all places: ``blocks`` of every block's channels, ``last`` of the last layer's.

    ``network`` has ``block_outputs`` and ``last_output`` (see ``medaug.models.efficientnet_lite``).
    """
    if taps == "last":
        return network.last_output(x_NCHW).mean((2, 3))  # type: ignore[operator]
    blocks: Iterator[Tensor] = network.block_outputs(x_NCHW)  # type: ignore[operator]
    return torch.cat([block.mean((2, 3)) for block in blocks], 1)


def unsealed(slices: Store) -> Store:
    """All rows but those of sealed test patients."""
    if slices.splits is None:
        return slices
    return slices.select(~np.isin(slices.units, slices.splits.test))


def sha256_of(path: Path, field: str) -> str:
    """Of a file's bytes. Raises UserError naming the key ``field`` where it cannot be read."""
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{field}: {path}: {error.strerror or error}; give a file") from None


def check_sha256(path: Path, expected: str, field: str, fix: str) -> None:
    """Raises IntegrityError where the file at ``path`` has another hash."""
    if (found := sha256_of(path, field)) != expected:
        raise IntegrityError(
            f"{field}: {path} has sha256 {found[:12]}…, not {expected[:12]}…; {fix}"
        )


def load_tensors(network: nn.Module, tensors: dict[str, Tensor], what: str) -> None:
    """Fill ``network``. Raises UserError naming a tensor that is missing or does not fit."""
    own = network.state_dict()
    for name, tensor in own.items():
        if name not in tensors:
            if name.endswith("num_batches_tracked"):  # decides nothing
                continue
            raise UserError(f"{what}: no tensor {name}; is it a file of this network?")
        if tensors[name].shape != tensor.shape:
            found, wanted = tuple(tensors[name].shape), tuple(tensor.shape)
            raise UserError(f"{what}: tensor {name} is {found}, this network wants {wanted}")
    network.load_state_dict({name: tensors[name] for name in own if name in tensors}, strict=False)
