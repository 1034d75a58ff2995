"""A registered DualStyleGAN as a stylist: many styles, and structure and colour apart."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import cast

import numpy as np

from models.errors import CheckpointError, must
from pipelines import registry
from pipelines.engines import Device, providers_of
from pipelines.params import Params
from pipelines.served.dualstyle import OUTPUTS, FaceSession
from pipelines.stage import Paths
from pipelines.strips import as_bytes
from pipelines.stylist import Output, check_style


class CartoonStylist:
    """Cartoons by `pipelines.served.dualstyle.FaceSession`, which travels with the version.

    Args:
        name: of the version, for reports.
        session: encoder, generator and styles.
    """

    has_structure = True

    def __init__(self, name: str, session: FaceSession) -> None:
        self.name, self._session = name, session
        self.styles: tuple[str, ...] = session.styles
        self.size_px: int | None = session.size_px

    def thumbnail(self, style: str) -> np.ndarray | None:
        """What the model makes of the style's own codes, uint8 (P, P, 3)."""
        check_style(self, style)
        shown: np.ndarray = self._session.thumbnails[self.styles.index(style)]
        return shown

    def stylise(self, crop: np.ndarray, style: str, *, structure: float, colour: float) -> dict[Output, np.ndarray]:
        """All four pictures of a face; the codes are found once.

        Raises:
            ParamsError: no such style.
        """
        check_style(self, style)
        codes = self._session.encode(crop[None])
        made = {
            output: self._session.make(codes, style, structure=structure, colour=colour, output=output)
            for output in OUTPUTS
        }
        return {cast(Output, output): as_bytes(pictures[0]) for output, pictures in made.items()}


def of_version(uri: str, params: Params | None, paths: Paths, *, device: Device = "auto") -> CartoonStylist:
    """A registered version of the family ``dualstyle``.

    Raises:
        TrackingError: no such version, or the registry is away.
        CheckpointError: its files can't be opened.
    """
    store = registry.store_of(params, paths)
    version = registry.find(uri, store)
    with tempfile.TemporaryDirectory(prefix="inkmotion-version-") as scratch:
        folder = registry.resolve(version.uri, store, target=Path(scratch))
        files = {name: folder / "artifacts" / name for name in ("dualstyle.onnx", "encoder.onnx", "styles.npz")}
        try:
            session = FaceSession(*files.values(), providers=providers_of(device))
        except Exception as error:  # ONNX Runtime's errors share no class of their own
            got = " ".join(str(error).split())[:200]
            raise CheckpointError(must(version.uri, "hold graphs and styles that can be opened", got)) from error
    return CartoonStylist(version.uri, session)
