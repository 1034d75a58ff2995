"""A published DualStyleGAN's styles, and the model version that it becomes with them."""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.errors import CheckpointError, must
from models.importers.reading import shown
from models.importers.stylegan2 import GanReport
from models.style.dualstylegan import DualStyleGenerator
from models.style.face_config import FaceConfig
from models.style.psp import Encoder
from pipelines.face_engines import TorchFaces
from pipelines.importing import LICENCE, made_up_frames
from pipelines.params import Params
from pipelines.stage import Paths
from training.checkpoint import CheckpointInfo, file_sha256, load_networks
from training.codes import Codes, code_table
from training.codes_published import read_published_dict

log = logging.getLogger(__name__)

OPSET = 20
"""Of ONNX, outside of a project."""
MEAN_OF = 4096
"""Codes that the mean style of thumbnails is taken of, where the generator's file says none; as published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Styles:
    """The codes of published styles, in Z+."""

    extrinsic: Mapping[str, Tensor]
    """By the style's name, (S, D) each."""
    intrinsic: Mapping[str, Tensor]
    """Likewise, of those that are known."""
    files: tuple[tuple[str, str], ...]
    """Name and sha256 of each file."""
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """In the order of a version's styles."""
        return tuple(sorted(self.extrinsic))

    def digest(self) -> str:
        """The same for the same codes under the same names."""
        made = hashlib.sha256()
        for codes in (self.extrinsic, self.intrinsic):
            for name in sorted(codes):
                made.update(f"{name}\n".encode() + codes[name].numpy().tobytes())
        return made.hexdigest()


class PublishedFaces(TorchFaces):
    """A published DualStyleGAN; a style without an intrinsic code is shown by the mean face."""

    def __init__(self, generator: DualStyleGenerator, encoder: Encoder, config: FaceConfig, styles: Styles) -> None:
        unknown = torch.zeros(config.num_styles, config.style_dim)
        codes = {
            name: Codes(extrinsic, styles.intrinsic.get(name, unknown)) for name, extrinsic in styles.extrinsic.items()
        }
        super().__init__(generator, encoder, config, code_table(codes))
        self._own = frozenset(styles.intrinsic)
        self._mean = mean_style(generator)

    def thumbnail(self, style: str) -> np.ndarray:
        """What the generator makes of a style's codes, uint8 (P, P, 3)."""
        if style in self._own:
            return super().thumbnail(style)
        weights = torch.ones(self.config.num_styles)
        with torch.inference_mode():
            extrinsic = self._codes_of(style).extrinsic[None]
            made = self.generator(self._mean[None], extrinsic, weights, intrinsic_space="w+")
        shown_by: np.ndarray = np.rint(made[0].clamp(0, 1).permute(1, 2, 0).numpy() * 255).astype(np.uint8)
        return shown_by


def mean_style(generator: DualStyleGenerator) -> Tensor:
    """The mean style, (D,): the network's, where it has one, else that of codes drawn here."""
    inner = generator.generator
    if bool(inner.mean_style.any()):
        return inner.mean_style
    draw = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        return inner.mapping(torch.randn(MEAN_OF, inner.config.style_dim, generator=draw)).mean(0)


def read_styles(extrinsic: Path, intrinsic: Path | None, config: FaceConfig) -> Styles:
    """Read the published codes of styles, without running what is in the files.

    Args:
        extrinsic: ``exstyle_code.npy`` or ``refined_exstyle_code.npy``.
        intrinsic: ``instyle_code.npy`` of the same pictures; None: there is none.
        config: of the generator, which the codes have to fit.

    Raises:
        CheckpointError: a file holds anything else, or codes of another generator; the two share no picture.
    """
    outer, inner = _codes(extrinsic, config), {} if intrinsic is None else _codes(intrinsic, config)
    known = {name: code for name, code in inner.items() if name in outer}
    if intrinsic is not None and not known:
        rule, fix = f"name pictures that {extrinsic.name} names", "Use the two files of one style set"
        raise CheckpointError(must(str(intrinsic), rule, "none of them", fix))
    lacking = len(outer) - len(known)
    files = tuple((shown(path.name), file_sha256(path)) for path in (extrinsic, intrinsic) if path is not None)
    notes = (f"{lacking} of {len(outer)} styles have no intrinsic code: the mean face shows them",) if lacking else ()
    return Styles(extrinsic=outer, intrinsic=known, files=files, notes=notes)


def register_version(  # noqa: PLR0913 - what a version is made of
    name: str,
    styles: Styles,
    contents: Sequence[GanReport],
    info: CheckpointInfo,
    folder: Path,
    params: Params | None,
    paths: Paths,
) -> tuple[str, float]:
    """Export an imported checkpoint, compare it with torch and register it.

    Args:
        name: of the model.
        styles: that it has.
        contents: of the files: the generator's report, then the encoder's.
        info: the checkpoint's manifest.
        folder: the checkpoint.
        params: of the project; None outside of one.
        paths: where the store is.

    Returns:
        The version's URI, and the largest difference of a pixel between ONNX and torch.

    Raises:
        CheckpointError: ONNX disagrees with torch.
        TrackingError: the store is away or refuses.
    """
    from models.export_face import export_faces
    from pipelines.carried import FAMILY_TAG
    from pipelines.modelcard import render
    from pipelines.register import TOLERANCE
    from pipelines.register_dualstyle import compare, write_styles
    from pipelines.registry import SERVED_TAG, Parcel, register, served_as, store_of
    from pipelines.served.dualstyle import FaceSession

    engine, opset = _engine(folder, styles), OPSET if params is None else params.registration.onnx_opset
    with tempfile.TemporaryDirectory() as scratch:
        networks = {"generator": engine.generator, "encoder": engine.encoder}
        encoder, generator = export_faces(networks, Path(scratch), opset=opset)
        generator = generator.rename(generator.with_name("dualstyle.onnx"))
        log.info("making a picture of each of %d styles", len(engine.styles))
        shown_styles = write_styles(engine, Path(scratch) / "styles.npz")
        difference = compare(engine, FaceSession(generator, encoder, shown_styles), made_up_frames(engine.config))
        if not difference <= TOLERANCE:
            raise CheckpointError(must(str(folder), f"agree with its ONNX graphs to {TOLERANCE}", difference))
        served = {FAMILY_TAG: "dualstyle", SERVED_TAG: served_as(opset, "dualstyle")}
        tags = {**_tags(styles, contents, info, paths), **served}
        parcel = Parcel(
            name=name,
            run_id=None,
            onnx=generator,
            checkpoint=folder,
            card=render(name, tags, evaluation=None, size=engine.size_px),
            tags=tags,
            size_px=engine.size_px,
            family="dualstyle",
            extras={"encoder": encoder, "styles": shown_styles},
        )
        version = register(parcel, store_of(params, paths))
    log.info("registered %s", version.uri)
    return version.uri, difference


def _engine(folder: Path, styles: Styles) -> PublishedFaces:
    networks, info = load_networks(folder)
    generator, encoder = networks["generator"], networks["encoder"]
    assert isinstance(generator, DualStyleGenerator), "written as a DualStyleGAN"
    assert isinstance(encoder, Encoder), "likewise"
    assert isinstance(info.model, FaceConfig), "likewise"
    return PublishedFaces(generator, encoder, info.model, styles)


def _codes(path: Path, config: FaceConfig) -> dict[str, Tensor]:
    """One file's codes by the names of their pictures, without the endings where these tell no two apart."""
    raw, shape = read_published_dict(path), (config.num_styles, config.style_dim)
    if not raw:
        raise CheckpointError(must(str(path), "hold the codes of one picture or more", "none", "Give another file"))
    for name, code in raw.items():
        if tuple(code.shape) != shape:
            rule, fix = f"hold {shape[0]} codes of {shape[1]} numbers a picture", "Give the codes of this generator"
            got = f"{' x '.join(map(str, code.shape))} for {shown(name)}"
            raise CheckpointError(must(str(path), rule, got, fix))
        if not bool(code.isfinite().all()):
            raise CheckpointError(must(str(path), "hold finite numbers", f"others for {shown(name)}", "Get it again"))
    short = {shown(Path(name).stem): code for name, code in raw.items()}
    return short if len(short) == len(raw) else {shown(name): code for name, code in raw.items()}


def _tags(styles: Styles, contents: Sequence[GanReport], info: CheckpointInfo, paths: Paths) -> dict[str, str]:
    from pipelines.lineage import git_tags

    model = json.dumps(asdict(info.model))
    files = (*((content.file, content.sha256) for content in contents), *styles.files)
    return {
        **git_tags(paths.root),
        "imported.from": ", ".join(file for file, _ in files),
        "imported.sha256": ", ".join(sha256 for _, sha256 in files),
        "imported.kind": "dualstyle",
        "imported.settings": hashlib.sha256(f"{model}{styles.digest()}".encode()).hexdigest()[:16],
        "weights.sha256": info.sha256,
        "preset": info.preset,
        "training.step": "0",
        "config.model": model,
        "data.licences": LICENCE,
        "num_styles": str(len(styles.names)),
    }
