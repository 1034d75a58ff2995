"""Published StyleGAN2 checkpoints (``stylegan2-ffhq-config-f.pt`` and its kind) into this project's networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.errors import CheckpointError, ParamsError, must
from models.importers.entries import Account, States, refuse_unfit
from models.importers.faces import METHODS, advice, fill, filled, kind_of, told
from models.importers.reading import MAX_BYTES, PublishedFile, read, shown, sound_tensor
from models.importers.report import NetworkRow, OptionRow, rows_of, table
from models.style.face_config import FaceConfig
from models.style.stylegan2.build import build_gan
from models.style.stylegan2.layers import TAPS

NETWORKS = {"g_ema": "generator", "d": "discriminator"}
"""Published name -> ours."""
MEAN = "latent_avg"
MEAN_OURS = "mean_style"
_AVERAGED = "g"
_KERNEL = "kernel"
_SHOWN = 6
_FIX = "The file is damaged or of another method; it can't be taken in part"
_SEEN = ("style_dim", "mapping_layers", "size_px", "max_channels")


@dataclass(frozen=True, slots=True, kw_only=True)
class GanReport:
    """What became of a published file."""

    method: str = METHODS["stylegan2"]
    file: str
    sha256: str
    networks: tuple[NetworkRow, ...]
    kernels: int
    """Fixed kernels of blurs that were looked at and left out: the networks have them without."""
    options: tuple[OptionRow, ...]
    ignored: tuple[str, ...]
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """To print."""
        rows = [(row.network, row.published, row.taken) for row in self.networks]
        return [
            f"{self.file} ({self.method})",
            *table(("network", "as published", "taken"), rows),
            f"kernels left out: {self.kernels}",
            "",
            *table(("option", "value", "said by"), [(row.option, row.value, row.source) for row in self.options]),
            *([f"ignored in the file: {', '.join(self.ignored)}"] if self.ignored else []),
            *(f"note: {note}" for note in self.notes),
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedGan:
    """A published checkpoint in this project's terms."""

    config: FaceConfig
    states: States
    """``generator`` and, where the file has one, ``discriminator``: state dicts that fit the networks of ``config``."""
    has_mean: bool
    """Whether the file says the mean style; without one it is zero, until `Generator.set_mean_style` is called."""
    report: GanReport

    def networks(self) -> dict[str, nn.Module]:
        """The networks that the file holds, filled, in eval mode."""
        made = build_gan(self.config)
        return filled({name: made[name] for name in self.states}, self.states)


def inspect(path: Path) -> ImportedGan:
    """Read a published checkpoint: a dict of ``g_ema`` (the generator), perhaps ``latent_avg`` and ``d``.

    Args:
        path: the published file.

    Raises:
        CheckpointError: the file can't be read safely, is of another method, or does not fit entry by entry.
    """
    return convert(read(path), where=str(path))


def load_into(networks: Mapping[str, nn.Module], path: Path) -> GanReport:
    """Fill given networks from a published file.

    Args:
        networks: ``generator``, ``discriminator`` or both.
        path: the published file.

    Raises:
        CheckpointError: as `inspect` says, or the file lacks a network, or has one of other sizes.
    """
    found = inspect(path)
    fill(networks, found.states, account, where=str(path))
    return found.report


def convert(file: PublishedFile, *, where: str) -> ImportedGan:
    """`inspect`, of a file that is read already; ``where`` names it in errors."""
    content = file.content
    if not isinstance(content.get("g_ema"), Mapping) or kind_of(content) == "dualstyle":
        fix = advice(content, "Give the published file, with its generator in g_ema")
        raise CheckpointError(must(where, f"be a checkpoint of {METHODS['stylegan2']}", told(content), fix))
    states: States = {}
    kernels = 0
    for theirs, ours in NETWORKS.items():
        if isinstance(content.get(theirs), Mapping):
            states[ours], dropped = entries(content[theirs], where=f"{where}: {theirs}")
            kernels += dropped
    config = config_of(states["generator"], where=f"{where}: g_ema")
    has_mean = MEAN in content
    states["generator"][MEAN_OURS] = mean_of(content, config.style_dim, where=where)
    with torch.device("meta"):
        wanted = {name: network.state_dict() for name, network in build_gan(config).items()}
    accounts = [account(name, state, wanted[name]) for name, state in states.items()]
    refuse_unfit(accounts, where=where, fix=_FIX)
    report = GanReport(
        file=file.name,
        sha256=file.sha256,
        networks=rows_of(accounts, {}),
        kernels=kernels,
        options=_options(config),
        ignored=tuple(shown(name) for name in content if name not in (*NETWORKS, MEAN)),
        notes=tuple(_notes(content, has_mean=has_mean)),
    )
    ordered = {name: {key: state[key] for key in wanted[name]} for name, state in states.items()}
    return ImportedGan(config=config, states=ordered, has_mean=has_mean, report=report)


def entries(raw: Mapping[Any, Any], *, where: str) -> tuple[dict[str, Tensor], int]:
    """A published network's entries as this project has them.

    Weights of modulated convolutions lose their axis of samples; kernels of blurs are looked at and left out.

    Args:
        raw: published name -> tensor.
        where: names the network in errors.

    Returns:
        Our entries, float32, and how many kernels were left out.

    Raises:
        CheckpointError: an entry is no sound tensor, or a kernel is another than [1, 3, 3, 1]'s.
    """
    made: dict[str, Tensor] = {}
    kernels = num_bytes = 0
    for key, value in raw.items():
        reason = sound_tensor(value) or (None if value.is_floating_point() else f"of type {value.dtype}")
        if reason is not None:
            raise CheckpointError(must(shown(f"{where}.{key}"), "be a tensor of finite numbers", reason, _FIX))
        num_bytes += value.numel() * 4
        if num_bytes > MAX_BYTES:  # many entries may show the same memory
            raise CheckpointError(must(where, f"hold at most {MAX_BYTES / 2**30:.0f} GiB of numbers", "more", _FIX))
        if str(key).rpartition(".")[2] == _KERNEL:
            _check_kernel(value, shown(f"{where}.{key}"))
            kernels += 1
            continue
        is_modulated = value.ndim == 5 and len(value) == 1
        made[str(key)] = (value[0] if is_modulated else value).detach().float().contiguous()
    return made, kernels


def config_of(state: Mapping[str, Tensor], *, where: str) -> FaceConfig:
    """The configuration of a generator, from its entries' shapes.

    Args:
        state: our names, see `entries`.
        where: names the network in errors.

    Raises:
        CheckpointError: they are no StyleGAN2 generator's.
    """
    sizes = _count(state, "to_rgbs.{}.conv.weight", first=0)
    last_rgb = f"to_rgbs.{max(sizes - 1, 0)}.conv.weight"
    telling = ("style.1.weight", "input.input", "conv1.conv.weight", "to_rgb1.conv.weight", last_rgb)
    missing = [name for name in telling if name not in state or state[name].ndim < 2]
    if missing:
        got = f"no {', '.join(missing)} among {len(state)} entries ({', '.join(map(shown, list(state)[:_SHOWN]))}, ...)"
        raise CheckpointError(must(where, "be a generator of StyleGAN2", got, _FIX))
    size_px = 4 * 2 ** min(sizes, 16)
    widest, last = state["input.input"].shape[1], state[last_rgb].shape[1]
    narrowed = {"channel_multiplier": last * size_px / (512 * 32)} if size_px > 32 and last < widest else {}
    try:
        return FaceConfig(
            size_px=size_px,
            style_dim=state["style.1.weight"].shape[1],
            mapping_layers=_count(state, "style.{}.weight", first=1),
            max_channels=widest,
            **narrowed,
        )
    except ParamsError as error:
        raise CheckpointError(must(where, "be a generator of StyleGAN2", str(error).rstrip("."), _FIX)) from error


def mean_of(content: Mapping[str, Any], style_dim: int, *, where: str) -> Tensor:
    """The mean style that a checkpoint says, (D,); zeros where it says none.

    Raises:
        CheckpointError: it is no code of this length.
    """
    if MEAN not in content:
        return torch.zeros(style_dim)
    value = content[MEAN]
    reason = sound_tensor(value)
    if reason is None and (value.numel() != style_dim or not value.is_floating_point()):
        reason = f"{value.dtype} of shape {tuple(value.shape)}"
    if reason is not None:
        raise CheckpointError(must(f"{where}: {MEAN}", f"be one code of {style_dim} numbers", reason, _FIX))
    mean: Tensor = value.detach().float().reshape(style_dim).clone()
    return mean


def account(name: str, given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Account:
    """Compare a network's entries with those that shall take them."""
    own = {key: tuple(value.shape) for key, value in wanted.items()}
    wrong = [key for key in own if key in given and tuple(given[key].shape) != own[key]]
    return Account(
        network=name,
        published={ours: theirs for theirs, ours in NETWORKS.items()}[name],
        taken=tuple(key for key in given if key in own and key not in wrong),
        missing=tuple(key for key in own if key not in given),
        unexpected=tuple(key for key in given if key not in own),
        wrong=tuple(f"{key} {tuple(given[key].shape)} instead of {own[key]}" for key in wrong),
    )


def _check_kernel(value: Tensor, where: str) -> None:
    taps = torch.tensor(TAPS)
    expected = torch.outer(taps, taps)
    if value.shape == expected.shape and value.sum() > 0:
        gain = float(value.sum() / expected.sum())
        if torch.allclose(value.float(), expected * gain, rtol=1e-3):
            return
    got = f"shape {tuple(value.shape)}, sum {float(value.sum()):g}"
    raise CheckpointError(must(where, "be the kernel of [1, 3, 3, 1]", got, "Only its networks can be taken"))


def _count(state: Mapping[str, Tensor], name: str, *, first: int) -> int:
    number = 0
    while name.format(first + number) in state:
        number += 1
    return number


def _options(config: FaceConfig) -> tuple[OptionRow, ...]:
    mine = asdict(config)
    shapes = [OptionRow(option=name, value=mine[name], source="the tensors' shapes") for name in _SEEN]
    multiplier = OptionRow(
        option="channel_multiplier",
        value=config.channel_multiplier,
        source="the tensors' shapes, where they are narrower than max_channels, else the published default",
    )
    rate = OptionRow(option="mapping_lr", value=config.mapping_lr, source="the published default")
    return (*shapes, multiplier, rate)


def _notes(content: Mapping[str, Any], *, has_mean: bool) -> list[str]:
    notes = []
    if not has_mean:
        notes.append(f"the file says no mean style ({MEAN}): it has to be set before pictures are truncated")
    if _AVERAGED in content:
        notes.append("g is the generator before averaging; g_ema, its average, is taken")
    return notes
