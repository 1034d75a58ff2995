"""Shared by all tests: nothing talks to anything but loopback, and no program phones home."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.update(
    RAY_USAGE_STATS_ENABLED="0",
    MLFLOW_DISABLE_TELEMETRY="true",
    ORT_DISABLE_TELEMETRY="1",
    DVC_NO_ANALYTICS="1",
    NO_COLOR="1",
    TERM="dumb",
)
os.environ.pop("MLFLOW_TRACKING_URI", None)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's folder."""
    return ROOT


@pytest.fixture(scope="session")
def samples(root: Path) -> Path:
    """The sample media."""
    return root / "samples"
