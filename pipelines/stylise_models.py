"""What makes drawings: a model version or a checkpoint, told in plain values that cross processes."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from models.errors import CheckpointError, ParamsError, Problem, must
from pipelines import registry
from pipelines.carried import family_of
from pipelines.params import Params
from pipelines.stage import Paths

Device = Literal["auto", "cpu", "cuda"]
Statistics = Any
"""Of an engine's normalisations: an array, or a sequence of arrays."""
Variant = Literal["", "fp16", "int8"]
"""Of a version's graph: with weights in 16 bits, with convolutions in 8; '': as it was trained."""


class StyleEngine(Protocol):
    """Makes drawings of photos of any size."""

    def stylise(
        self, pictures: np.ndarray, *, strength: float = 1.0, tile_px: int | None = None, given: Statistics = None
    ) -> np.ndarray:
        """Photos, uint8 (N, H, W, 3), as drawings, float32 in [0, 1], of the same shape."""

    def measure(self, picture: np.ndarray) -> Statistics:
        """By what a photo, uint8 (H, W, 3), is normalised; to be ``given``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """Where an engine comes from."""

    name: str
    """A version's URI or a checkpoint's folder, for reports."""
    graph: bytes = b""
    """The version's ONNX file, so that other machines need no registry; empty: a checkpoint."""
    checkpoint: str = ""
    """Folder, which every node reaches."""
    device: Device = "auto"

    def engine(self) -> StyleEngine:
        """Open it.

        Raises:
            CheckpointError: the graph or the checkpoint can't be opened.
            EnvironmentProblem: there is no such device.
        """
        return self._of_graph() if self.graph else self._of_checkpoint()

    def _of_graph(self) -> StyleEngine:
        from pipelines.engines import providers_of
        from pipelines.served.style import StyleSession

        providers = providers_of(self.device)
        with tempfile.TemporaryDirectory(prefix="inkmotion-version-") as scratch:
            path = Path(scratch) / "model.onnx"
            path.write_bytes(self.graph)
            try:
                session: StyleEngine = StyleSession(path, providers=providers)
            except Exception as error:  # ONNX Runtime's errors share no class of their own
                got = " ".join(str(error).split())[:200]
                raise CheckpointError(must(self.name, "hold a graph that ONNX Runtime can open", got)) from error
        return session

    def _of_checkpoint(self) -> StyleEngine:
        from pipelines.style_engines import from_checkpoint

        engine: StyleEngine = from_checkpoint(Path(self.checkpoint), device=self.device)[0]
        return engine


def of_version(
    uri: str, params: Params | None, paths: Paths, *, device: Device = "auto", variant: Variant = ""
) -> ModelSource:
    """A registered model version, or a reduced variant of its graph, which is fetched here, once.

    Raises:
        ParamsError: it moves pictures in place of drawing them.
        TrackingError: no such version or variant, one that is not of this project, or the registry is away.
    """
    store = registry.store_of(params, paths)
    version = registry.find(uri, store)
    if family_of(version.tags) != "style":
        raise _moves_pictures(version.uri)
    with tempfile.TemporaryDirectory(prefix="inkmotion-version-") as scratch:
        graph = registry.onnx_of(registry.resolve(version.uri, store, target=Path(scratch)), variant).read_bytes()
    return ModelSource(name=f"{version.uri} {variant}".strip(), graph=graph, device=device)


def of_checkpoint(folder: Path, *, device: Device = "auto") -> ModelSource:
    """A checkpoint's or an exported model's folder; its manifest is read, its weights are not yet.

    Raises:
        CheckpointError: no whole checkpoint.
        ParamsError: its networks move pictures in place of drawing them.
    """
    from models.catalog import MODELS
    from training.checkpoint import read_info

    if MODELS[read_info(folder).preset].family != "style":
        raise _moves_pictures(str(folder))
    return ModelSource(name=str(folder), checkpoint=str(folder.absolute()), device=device)


def of_experiment(experiment: str, params: Params, paths: Paths) -> ModelSource:
    """The experiment's champion, or its candidate while there is no champion.

    Raises:
        ParamsError: it moves pictures.
        TrackingError: it has neither, or the registry is away.
    """
    store = registry.store_of(params, paths)
    aliases = {alias for version in registry.versions_of(experiment, store) for alias in version.aliases}
    alias = registry.CHAMPION if registry.CHAMPION in aliases else registry.CANDIDATE
    return of_version(f"models:/{experiment}@{alias}", params, paths)


def open_model(  # noqa: PLR0913 - the command line's options
    params: Params | None,
    paths: Paths,
    *,
    model: str | None,
    checkpoint: Path | None,
    device: Device = "auto",
    variant: Variant = "",
) -> ModelSource:
    """What the command line names: a model version or a checkpoint.

    Args:
        params: of the project, for its registry; None: the environment's.
        paths: of the project.
        model: ``models:/NAME@ALIAS``, ``models:/NAME/VERSION`` or ``models:/NAME``.
        checkpoint: a checkpoint's or exported model's folder.
        device: ``auto`` takes a GPU when there is one.
        variant: of a version.

    Raises:
        ParamsError: neither or both are named, or what is named moves pictures.
        TrackingError: no such version, or the registry is away.
        CheckpointError: no whole checkpoint.
    """
    if (model is None) == (checkpoint is None):
        got = "neither" if model is None else "both"
        raise ParamsError([Problem("model and checkpoint", got, "be given one of the two (--model or --checkpoint)")])
    if model is not None:
        return of_version(model, params, paths, device=device, variant=variant)
    assert checkpoint is not None, "one of the two is given"
    if variant:
        raise ParamsError([Problem("--variant", variant, "be left out with --checkpoint: versions have variants")])
    return of_checkpoint(checkpoint, device=device)


def _moves_pictures(name: str) -> ParamsError:
    return ParamsError([Problem("model", name, "make drawings of photos; this one moves pictures: inkmotion animate")])
