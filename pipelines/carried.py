"""What a registered version carries, by its model's family: code, graph, signature. No torch, no mlflow on import."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.families import Family
from pipelines.served import example

HERE = Path(__file__).parent
MODELS_FOLDER = HERE.parent / "models"
FAMILY_TAG = "family"
"""Of a version; one without it is a motion model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """One family's."""

    artifact: str
    """Name of the graph's file, without its suffix, among the version's artifacts."""
    code: Path
    """The one file that serves it."""
    made_by: tuple[Path, ...]
    """Files that say how the graph is made."""
    signature: Callable[[], Any]
    example: Callable[[], dict[str, Any]]

    def sha256(self, opset: int) -> str:
        """Of the code that a version carries and of how its graph was made: the same only while nothing changes."""
        digest = hashlib.sha256(str(opset).encode())
        for path in (self.code, *self.made_by):
            digest.update(path.read_bytes())
        return digest.hexdigest()


CARRIED: dict[Family, Carried] = {
    "motion": Carried(
        artifact="motion",
        code=HERE / "served" / "motion.py",
        made_by=(MODELS_FOLDER / "export.py", MODELS_FOLDER / "export_parts.py"),
        signature=example.motion_signature,
        example=example.motion_example,
    ),
    "style": Carried(
        artifact="style",
        code=HERE / "served" / "style.py",
        made_by=(MODELS_FOLDER / "export_style.py", MODELS_FOLDER / "export_parts.py", HERE / "style_variants.py"),
        signature=example.style_signature,
        example=example.style_example,
    ),
    "dualstyle": Carried(
        artifact="dualstyle",
        code=HERE / "served" / "dualstyle.py",
        made_by=(MODELS_FOLDER / "export_face.py", MODELS_FOLDER / "export_parts.py"),
        signature=example.dualstyle_signature,
        example=example.dualstyle_example,
    ),
    "system": Carried(
        artifact="motion",
        code=HERE / "served" / "system.py",
        made_by=(HERE / "served" / "dualstyle.py", HERE / "served" / "motion.py"),
        signature=example.system_signature,
        example=example.system_example,
    ),
}


def family_of(tags: Mapping[str, str]) -> Family:
    """The family of a version with these tags."""
    return next((family for family in CARRIED if family == tags.get(FAMILY_TAG)), "motion")
