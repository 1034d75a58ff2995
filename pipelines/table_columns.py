"""How the columns of tables are written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from training.metrics.akd_mkr import FRAME_PX


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """How a metric is written."""

    name: str
    unit: str
    decimals: int
    percent: float = 100.0
    """Factor to percent."""


COLUMNS: Mapping[str, Column] = {
    "l1": Column(name="L1", unit="of the range 0 to 1", decimals=4),
    "akd": Column(name="AKD", unit="pixels at 256 x 256", decimals=3, percent=100 / FRAME_PX),
    "akd-l2": Column(name="AKD-L2", unit="pixels at 256 x 256", decimals=3, percent=100 / FRAME_PX),
    "mkr": Column(name="MKR", unit="share", decimals=4),
    "aed": Column(name="AED", unit="squared distance", decimals=4),
    "aed-l2": Column(name="AED-L2", unit="distance", decimals=4),
    "eid": Column(name="EID", unit="percent", decimals=2, percent=1.0),
    "step_s": Column(name="step", unit="s", decimals=3, percent=1.0),
    "avd_step_s": Column(name="AVD step", unit="s", decimals=4, percent=1.0),
    "memory_mb": Column(name="memory", unit="MB", decimals=0, percent=1.0),
    "fid": Column(name="FID", unit="squared distance of features", decimals=2, percent=1.0),
    "kid": Column(name="KID", unit="squared discrepancy of features", decimals=4, percent=1.0),
    "is": Column(name="IS", unit="1 to the number of classes", decimals=2, percent=1.0),
    "content": Column(name="content", unit="of the distance of different photos", decimals=3, percent=1.0),
    "detail": Column(name="detail", unit="of the photos' own", decimals=3, percent=1.0),
    "parameters": Column(name="parameters of the generator", unit="", decimals=0, percent=1.0),
    "parameters_trained": Column(name="of all networks", unit="", decimals=0, percent=1.0),
    "image_ms": Column(name="image", unit="ms", decimals=0, percent=1.0),
    "image_mb": Column(name="image", unit="MB", decimals=0, percent=1.0),
}
