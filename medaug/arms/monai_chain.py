"""A chain of MONAI's array transforms as classical augmentation, seeded image by image.

Names are looked up among the classes of MONAI's own modules of augmentation and nowhere else: what
reads or writes files, calls functions or builds things by name (``monai.transforms.io`` and
``utility``) is not there, and no argument is evaluated.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from medaug.errors import UserError, lines_of
from medaug.seeding import seed_of
from medaug.spec.arms import TransformSpec
from medaug.spec.validation import nearest

ROOMS = ("spatial", "intensity", "croppad", "smooth_field")
"""Parts of ``monai.transforms`` whose arrays are augmentation."""


class MonaiChain:
    """Transforms one after the other, each with randomness of its own.

    Raises:
        UserError: a name or an argument that MONAI does not know, or does not take; ``where``:
            the key of the study, for this message.
    """

    def __init__(self, transforms: Sequence[TransformSpec], where: str) -> None:
        from monai.transforms import Compose

        self._where = where
        built = [_built(spec, f"{where}[{i}]") for i, spec in enumerate(transforms)]
        self._names = [spec.name for spec in transforms]
        self._chain = Compose(built)

    def __call__(self, x_NCHW: Tensor, seeds: Sequence[int]) -> Tensor:
        """Images (N, C, S, S) transformed, float32; what becomes of one depends on its seed and on
        nothing else.

        Raises:
            UserError: a transform fails, or gives an image of another size.
        """
        if not len(x_NCHW):
            return x_NCHW.float()
        rows = [self._one(x, seed) for x, seed in zip(x_NCHW, seeds, strict=True)]
        return torch.stack(rows)

    def try_out(self, side: int) -> None:
        """One image of ``side`` pixels, so that what cannot work is told at once."""
        image = torch.linspace(0, 1, side * side).view(1, 1, side, side)
        self(image, [seed_of("trial of transforms")])

    def _one(self, x_CHW: Tensor, seed: int) -> Tensor:
        from monai.utils import convert_to_tensor

        self._chain.set_random_state(seed=seed)
        before = x_CHW.detach().cpu().float()
        try:
            changed = self._chain(before.clone())
        # Whatever somebody else's transform raises for arguments that do not suit the image.
        except Exception as error:
            cause = error.__cause__ or error
            why = f"{type(cause).__name__}: {cause}".splitlines()[0]
            raise UserError(f"{self._where}: {' -> '.join(self._names)} fails ({why})") from error
        x = convert_to_tensor(changed, dtype=torch.float32, track_meta=False)
        if x.shape != before.shape:
            size, was = ("x".join(map(str, each.shape)) for each in (x, before))
            raise UserError(
                f"{self._where}: {' -> '.join(self._names)} makes {size} of {was}; end with one "
                "that brings the size back, like Resize"
            )
        return x


@cache
def known() -> Mapping[str, type]:
    """Name -> class of every transform that may be in a chain."""
    from monai import transforms
    from monai.transforms import MultiSampleTrait, Transform

    modules = {f"monai.transforms.{room}.array" for room in ROOMS}
    return {
        name: found
        for name, found in vars(transforms).items()
        if isinstance(found, type)
        and issubclass(found, Transform)
        and not issubclass(found, MultiSampleTrait)
        and found.__module__ in modules
        and not inspect.isabstract(found)
    }


def _built(spec: TransformSpec, where: str) -> Any:
    if spec.name not in known():
        raise UserError(f"{where}.name: MONAI has no augmentation '{spec.name}'{_hint(spec.name)}")
    found, keys = known()[spec.name], spec.arguments
    taken = inspect.signature(found).parameters
    for key in keys:
        if key not in taken:
            raise UserError(f"{where}.{key}: {spec.name} takes no such key{nearest(key, taken)}")
    try:
        return found(**keys)
    # Whatever its constructor thinks of the values.
    except Exception as error:
        raise UserError(f"{where}: {spec.name}: {lines_of(error)[0]}") from error


def _hint(name: str) -> str:
    """The name that may be meant; all of them are no help."""
    array = re.sub("(d|D|Dict)$", "", name)
    if array in known():
        return f"; '{array}' is the one for arrays"
    close = nearest(name, known())
    return close if "did you mean" in close else "; see the array transforms of monai.transforms"
