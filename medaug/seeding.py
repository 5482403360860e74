"""Randomness as a pure function of integers and words.

Every random draw in medaug comes from a generator made on the spot from what identifies the draw
(seed, purpose, epoch, step, row …). Nothing depends on how many draws came before, so a resumed
run, another number of ranks, or another order of trials gives the same numbers.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def seed_of(*parts: int | str) -> int:
    """A 63-bit seed from the SHA-256 of ``parts``; distinct parts give independent seeds."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(*parts: int | str, device: str | torch.device = "cpu") -> torch.Generator:
    """A torch generator seeded by ``parts``."""
    import torch

    return torch.Generator(device=device).manual_seed(seed_of(*parts))


def numpy_generator(*parts: int | str) -> np.random.Generator:
    """A NumPy generator (Philox, counter-based) seeded by ``parts``."""
    return np.random.Generator(np.random.Philox(seed_of(*parts)))


def numbered(names: np.ndarray) -> tuple[int, np.ndarray]:
    """How many different names there are, and the number of each (n,), int64 from 0, in the order
    in which they first occur.

    What is drawn among patients is drawn among these numbers: the order of their pseudonyms follows
    the site's key, the order of their rows only the scans, and so does then what is drawn.
    """
    _, first, index = np.unique(names, return_index=True, return_inverse=True)
    return len(first), np.argsort(np.argsort(first))[index]
