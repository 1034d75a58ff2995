"""Random numbers keyed by what they are for, never by who draws them: same seed, same bits, on any number of ranks."""

from __future__ import annotations

import hashlib

import numpy as np


def keyed(seed: int, *parts: int | str) -> np.random.Generator:
    """A generator that depends on its key alone.

    Args:
        seed: the training's seed.
        parts: what the numbers are for, as (step, item, purpose).
    """
    digest = hashlib.blake2b(repr((seed, *parts)).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
