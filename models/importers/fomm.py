"""Published First Order Motion Model checkpoints (``*.pth.tar``) into networks that are there already."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from models.importers.inspect import fill
from models.importers.layout import FOMM
from models.importers.report import ImportReport


def load_into(networks: Mapping[str, nn.Module], path: Path) -> ImportReport:
    """Fill networks from a published file.

    Args:
        networks: the ones to fill, of ``generator``, ``keypoint_detector`` and ``discriminator``. Checkpoints trained
            with torch 1.2 or older need networks built with ``align_corners`` set.
        path: the published file.

    Raises:
        CheckpointError: the file is missing, can't be read safely, or does not fit the networks' configuration.
    """
    return fill(networks, path, FOMM)
