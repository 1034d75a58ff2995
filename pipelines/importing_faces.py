"""Published files of StyleGAN2, pSp and DualStyleGAN in: checkpoints to train on from, and a version that stylises."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from torch import nn

from models.catalog import MODELS
from models.errors import CheckpointError, ParamsError, Problem, must
from models.importers import dualstylegan, psp, stylegan2
from models.importers.entries import States
from models.importers.stylegan2 import GanReport
from models.style.face_config import FaceConfig
from models.style.stylegan2.generator import Generator
from pipelines.dualstyle_steps import STEPS, StepName
from pipelines.importing import checked_name, name_of
from pipelines.importing_dualstyle import Styles, read_styles, register_version
from pipelines.params import Params
from pipelines.stage import Paths, fresh_folder, only_writer, write_report
from training.checkpoint import CheckpointInfo, load_networks, tensors_of, write_checkpoint
from training.face_config import FaceTrainConfig
from training.job import load_callable

log = logging.getLogger(__name__)

FaceKind = Literal["stylegan2", "psp", "dualstyle"]
STEP: Mapping[FaceKind, StepName] = {"stylegan2": "gan", "psp": "encoder", "dualstyle": "target"}
"""Kind -> the training of a DualStyleGAN that goes on from such a file; its preset is the checkpoint's."""
SEED = 0
"""Of what a file does not hold: a discriminator's first weights, the codes that a mean style is taken of."""
MEAN_OF = 10_000
"""Codes that a mean style is taken of."""
_OF_ENCODER = ("encoder_px", "encoder_width", "encoder_units")
_OF_PATH = ("structure_layers",)
_TAKES: Mapping[FaceKind, tuple[str, ...]] = {
    "stylegan2": (),
    "psp": ("generator",),
    "dualstyle": ("encoder", "styles", "instyle"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What goes with a published file."""

    generator: Path | None = None
    """psp: the folder of a StyleGAN2's checkpoint; None: the one in the file."""
    encoder: Path | None = None
    """dualstyle: the published encoder."""
    styles: Path | None = None
    """dualstyle: the extrinsic codes of the styles, a ``.npy``."""
    instyle: Path | None = None
    """dualstyle: the intrinsic codes of the same pictures, which its styles are shown with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceImportReport:
    """What an import did; reports/import/<name>.json."""

    name: str
    kind: FaceKind
    preset: str
    folder: str
    """The checkpoint, as ``init_from`` takes it."""
    weights_sha256: str
    uri: str | None
    """The model version of a DualStyleGAN; None: of the others there is none."""
    onnx_difference: float | None
    """Largest difference of a pixel between ONNX Runtime and torch on made-up faces."""
    num_styles: int
    model: dict[str, Any]
    """The configuration that fits: ``dualstyles.NAME.model``; what the files don't tell is left out."""
    contents: tuple[GanReport, ...]
    notes: tuple[str, ...]
    seconds: float

    def lines(self) -> list[str]:
        """To print."""
        tables = [line for content in self.contents for line in (*content.lines(), "")]
        place = f"checkpoint in {self.folder} (preset {self.preset})"
        registered = [] if self.uri is None else [f"registered as {self.uri} (candidate), {self.num_styles} styles"]
        compared = [] if self.onnx_difference is None else [f"ONNX differs from torch by {self.onnx_difference:.1e}"]
        entry = {"NAME": {"model": self.model, STEP[self.kind]: {"init_from": self.folder}}}
        settings = yaml.safe_dump(entry, default_flow_style=None, width=110, sort_keys=False)
        return [
            *tables,
            *(f"note: {note}" for note in self.notes),
            *registered,
            place,
            *compared,
            "train on from it, with an entry of dualstyles in params.yaml:",
            *(f"  {line}" for line in settings.splitlines()),
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Taken:
    """What was read."""

    config: FaceConfig
    states: States
    contents: tuple[GanReport, ...]
    untold: tuple[str, ...]
    """Options of the configuration that nothing read tells of."""
    wants_mean: bool = False
    """The generator's mean style is still to be found."""
    notes: tuple[str, ...] = ()


def run(
    file: Path,
    kind: FaceKind,
    params: Params | None,
    paths: Paths,
    *,
    beside: Beside | None = None,
    name: str | None = None,
) -> FaceImportReport:
    """Import a published file: a checkpoint of the fitting preset; of a DualStyleGAN a model version, too.

    All files are read and checked before anything is written.

    Args:
        file: as it was published.
        kind: whose it is.
        params: of the project; None outside of one.
        paths: where the checkpoint's folder goes (data/imported/<name>).
        beside: what goes with it.
        name: of the folder and the model; None: made of kind and file name.

    Raises:
        CheckpointError: a file is refused, with the reason, and nothing was written; or the graph does not do what the
            networks do, and the checkpoint's folder is there all the same.
        ParamsError: the name can't be one, or a file that is needed was not named.
        TrackingError: the store is away or refuses; the checkpoint's folder is there all the same.
    """
    started_s, beside = time.monotonic(), beside or Beside()
    name = checked_name(name if name is not None else name_of(file, kind))
    _check(kind, beside)
    taken = _READERS[kind](file, beside)
    styles = _styles(beside, taken) if kind == "dualstyle" else None
    target, preset = paths.root / "data" / "imported" / name, STEPS[STEP[kind]].preset
    with only_writer(target):
        networks, notes = _networks(preset, taken)
        info = _write(name, preset, taken, networks, target)
        del networks
        registered: tuple[str | None, float | None] = (None, None)
        if styles is not None:
            registered = register_version(name, styles, taken.contents, info, target, params, paths)
    report = FaceImportReport(
        name=name,
        kind=kind,
        preset=preset,
        folder=str(target),
        weights_sha256=info.sha256,
        uri=registered[0],
        onnx_difference=registered[1],
        num_styles=0 if styles is None else len(styles.names),
        model=_settings(taken),
        contents=taken.contents,
        notes=(*taken.notes, *notes, *(() if styles is None else styles.notes)),
        seconds=round(time.monotonic() - started_s, 3),
    )
    write_report(paths.report("import", name), report)
    log.info("imported %s into %s", file, target)
    return report


def _check(kind: FaceKind, beside: Beside) -> None:
    given = {entry.name: getattr(beside, entry.name) for entry in fields(beside)}
    problems = [
        Problem(f"--{name}", str(path), f"be left out with --kind {kind}")
        for name, path in given.items()
        if path is not None and name not in _TAKES[kind]
    ]
    if kind == "dualstyle":
        rules = {"encoder": "name the published encoder.pt", "styles": "name the styles' refined_exstyle_code.npy"}
        problems += [Problem(f"--{name}", None, rule) for name, rule in rules.items() if given[name] is None]
    if problems:
        raise ParamsError(problems)


def _read_stylegan2(file: Path, beside: Beside) -> _Taken:
    found = stylegan2.inspect(file)
    untold = (*_OF_ENCODER, *_OF_PATH)
    return _Taken(
        config=found.config,
        states=found.states,
        contents=(found.report,),
        untold=untold,
        wants_mean=not found.has_mean,
    )


def _read_psp(file: Path, beside: Beside) -> _Taken:
    found = psp.inspect(file)
    config, states = found.config, dict(found.states)
    if beside.generator is not None:
        base, states["generator"] = _generator(beside.generator)
        config = _joined(base, found.config, where=str(file), other=str(beside.generator))
        note = f"the generator is that of {beside.generator}"
    elif "generator" in states:
        note = "the generator is the decoder of the file"
    else:
        fix = "Import its StyleGAN2 first, and name that folder with --generator"
        raise CheckpointError(must(str(file), "hold its generator", "an encoder alone", fix))
    return _Taken(
        config=config,
        states=states,
        contents=(found.report,),
        untold=_OF_PATH,
        wants_mean=beside.generator is None,
        notes=(note, _IN_Z),
    )


def _read_dualstyle(file: Path, beside: Beside) -> _Taken:
    assert beside.encoder is not None, "checked"
    found = dualstylegan.inspect(file)
    encoder = psp.inspect(beside.encoder)
    return _Taken(
        config=_joined(found.config, encoder.config, where=str(beside.encoder), other=str(file)),
        states={**found.states, "encoder": encoder.states["encoder"]},
        contents=(found.report, encoder.report),
        untold=(),
        notes=(_IN_Z,),
    )


_IN_Z = "the encoder's codes are taken to be of Z+, as DualStyleGAN's are: its file does not tell"
_READERS: Mapping[FaceKind, Callable[[Path, Beside], _Taken]] = {
    "stylegan2": _read_stylegan2,
    "psp": _read_psp,
    "dualstyle": _read_dualstyle,
}


def _styles(beside: Beside, taken: _Taken) -> Styles:
    assert beside.styles is not None, "checked"
    return read_styles(beside.styles, beside.instyle, taken.config)


def _generator(folder: Path) -> tuple[FaceConfig, dict[str, torch.Tensor]]:
    """A StyleGAN2's configuration and generator, averaged where there is an average."""
    networks, info = load_networks(folder)
    generator = networks.get("generator")
    if not isinstance(generator, Generator) or not isinstance(info.model, FaceConfig):
        fix = "Name the folder of an imported or trained StyleGAN2"
        raise CheckpointError(must(str(folder), "hold a StyleGAN2", f"the preset {info.preset}", fix))
    return info.model, dict(generator.state_dict())


def _joined(generator: FaceConfig, encoder: FaceConfig, *, where: str, other: str) -> FaceConfig:
    """A generator's configuration with its encoder's sizes."""
    sizes = [(config.num_styles, config.style_dim) for config in (generator, encoder)]
    if sizes[0] != sizes[1]:
        rule = "find {} codes of {} numbers, as {} takes them".format(*sizes[0], other)
        fix = "Give the encoder that was published with the generator"
        raise CheckpointError(must(where, rule, "{} of {}".format(*sizes[1]), fix))
    return replace(generator, **{key: getattr(encoder, key) for key in _OF_ENCODER})


def _networks(preset: str, taken: _Taken) -> tuple[dict[str, nn.Module], list[str]]:
    """All networks of a preset's training, and notes on those that the files do not hold."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        networks: dict[str, nn.Module] = load_callable(MODELS[preset].build)(taken.config)
    for name, state in taken.states.items():
        networks[name].load_state_dict(state)
    fresh = [name for name, network in networks.items() if name not in taken.states and list(network.parameters())]
    notes = [f"the files hold no {name}: a training starts with a fresh one" for name in fresh]
    generator = networks["generator"]
    if taken.wants_mean and isinstance(generator, Generator):
        generator.set_mean_style(MEAN_OF, torch.Generator().manual_seed(SEED))
        notes.append(f"the mean style is that of {MEAN_OF} codes drawn here")
    return networks, notes


def _write(name: str, preset: str, taken: _Taken, networks: Mapping[str, nn.Module], target: Path) -> CheckpointInfo:
    info = CheckpointInfo(
        step=0,
        images_seen=0,
        preset=preset,
        model=taken.config,
        train=FaceTrainConfig(),
        sha256="",
        experiment=name,
    )
    with fresh_folder(target) as making:
        return write_checkpoint(making, info, tensors_of(networks), None)


def _settings(taken: _Taken) -> dict[str, Any]:
    told = {key: value for key, value in asdict(taken.config).items() if key not in taken.untold}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in told.items()}
