"""Names of layers that a configuration chooses from. Standard library only, so that settings are read without torch."""

from __future__ import annotations

from typing import Literal

SampleNormName = Literal["instance", "layer", "lin"]
