"""Numbers out of reports, which may hold anything."""

from __future__ import annotations

import math
from typing import Any


def count(value: Any) -> int | None:
    """A whole number, 0 or more; None: it is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def number(value: Any) -> float | None:
    """A finite number; None: it is none."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # a whole number of hundreds of digits
        return None
