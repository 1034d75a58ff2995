"""A 64-bit perceptual hash: pictures that look alike have hashes that differ in few bits."""

from __future__ import annotations

import cv2
import numpy as np

HASH_BITS = 64
_SIDE = 32
_LOW = 8


def perceptual_hash(picture: np.ndarray) -> np.uint64:
    """The DCT hash ("pHash"): which of the lowest 8x8 frequencies of the 32x32 gray picture lie above their median.

    Brightness, contrast, size and compression hardly change it; what is shown, and where, does.

    Args:
        picture: uint8 RGB (H, W, 3) or gray (H, W).
    """
    gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) if picture.ndim == 3 else picture
    small = cv2.resize(gray, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = np.asarray(cv2.dct(small))[:_LOW, :_LOW].ravel()
    bits = low > np.median(low[1:])  # the first is the mean brightness, which would pull the median
    return np.uint64(int.from_bytes(np.packbits(bits).tobytes(), "big"))


def distance(one: np.uint64, others: np.ndarray | np.uint64) -> np.ndarray:
    """Number of bits, 0 to 64, in which a hash differs from another or from each of an array (n,) of uint64."""
    return np.asarray(np.bitwise_count(np.bitwise_xor(one, others)), np.int64)
