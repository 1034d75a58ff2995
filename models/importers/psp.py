"""Published pSp checkpoints (``encoder.pt`` of DualStyleGAN and its kind) into this project's networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.errors import CheckpointError, ParamsError, must
from models.importers.entries import COUNTER, Account, States, refuse_unfit
from models.importers.faces import METHODS, advice, fill, filled, told
from models.importers.reading import PublishedFile, read, shown, sound_tensor
from models.importers.report import OptionRow, rows_of
from models.importers.stylegan2 import MEAN, MEAN_OURS, GanReport, account, config_of, entries
from models.style.face_config import FaceConfig
from models.style.psp import Encoder, Space
from models.style.stylegan2.generator import Generator

METHOD = METHODS["psp"]
NETWORKS = {"encoder": "encoder", "decoder": "generator"}
"""Beginning of the published names -> our network."""
_STATE, _OPTIONS, _ADDED = "state_dict", "opts", "start_from_latent_avg"
_MEAN_CODE = "mean_code"
_SHOWN = 6
_SEEN = ("size_px", "style_dim", "encoder_px", "encoder_width", "encoder_units")
_OF_GENERATOR = ("mapping_layers", "max_channels", "channel_multiplier")
_FIX = "The file is damaged or of another method; it can't be taken in part"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedEncoder:
    """A published checkpoint in this project's terms."""

    config: FaceConfig
    space: Space
    states: States
    """``encoder`` and, where the file has one, ``generator``: state dicts that fit the networks of ``config``."""
    report: GanReport

    def networks(self) -> dict[str, nn.Module]:
        """The networks that the file holds, filled, in eval mode."""
        return filled(_networks(self.config, self.states, self.space), self.states)


def inspect(path: Path, *, space: Space = "z+") -> ImportedEncoder:
    """Read a published checkpoint: a dict of ``state_dict``, perhaps ``latent_avg`` and ``opts``.

    Args:
        path: the published file.
        space: of the codes it finds, which nothing in the file tells: DualStyleGAN's is of Z+, pSp's own of W+. The
            saved mean is added to the codes where ``opts.start_from_latent_avg`` says so. In W+ it is also the mean
            style of the generator in the file.

    Raises:
        CheckpointError: the file can't be read safely, is of another method, or does not fit entry by entry.
    """
    return convert(read(path), where=str(path), space=space)


def load_into(networks: Mapping[str, nn.Module], path: Path) -> GanReport:
    """Fill given networks from a published file.

    Args:
        networks: ``encoder``, ``generator`` (StyleGAN2's) or both.
        path: the published file.

    Raises:
        CheckpointError: as `inspect` says, or the file lacks a network, or has one of other sizes.
    """
    encoder = networks.get("encoder")
    found = inspect(path, space=encoder.space if isinstance(encoder, Encoder) else "z+")
    fill(networks, found.states, _account, where=str(path))
    return found.report


def convert(file: PublishedFile, *, where: str, space: Space = "z+") -> ImportedEncoder:
    """`inspect`, of a file that is read already; ``where`` names it in errors."""
    content = file.content
    parts = _parts(content, where)
    counters = {ours: sum(_is_counter(key) for key in part) for ours, part in parts.items()}
    states, kernels = States(), 0
    for ours, part in parts.items():
        kept = {key: value for key, value in part.items() if not _is_counter(key)}
        states[ours], dropped = entries(kept, where=f"{where}: {ours}")
        kernels += dropped
    config = _config(states, where)
    mean = _mean(content, config, where)
    adds = _adds_mean(content)
    states["encoder"][_MEAN_CODE] = mean if adds else torch.zeros_like(mean)
    if "generator" in states:
        states["generator"][MEAN_OURS] = mean.mean(0) if space == "w+" else torch.zeros(config.style_dim)
    with torch.device("meta"):
        wanted = {name: network.state_dict() for name, network in _networks(config, states, space).items()}
    accounts = [_account(name, state, wanted[name]) for name, state in states.items()]
    refuse_unfit(accounts, where=where, fix=_FIX)
    report = GanReport(
        method=METHOD,
        file=file.name,
        sha256=file.sha256,
        networks=rows_of(accounts, counters),
        kernels=kernels,
        options=_options(config, states, space),
        ignored=tuple(shown(name) for name in content if name not in (_STATE, MEAN, _OPTIONS)),
        notes=(_told(adds, MEAN in content),),
    )
    ordered = {name: _in_order(state, wanted[name]) for name, state in states.items()}
    return ImportedEncoder(config=config, space=space, states=ordered, report=report)


def _networks(config: FaceConfig, states: Mapping[str, object], space: Space) -> dict[str, nn.Module]:
    made: dict[str, nn.Module] = {"encoder": Encoder(config, space=space)}
    return {**made, "generator": Generator(config)} if "generator" in states else made


def _parts(content: Mapping[str, Any], where: str) -> dict[str, dict[str, Any]]:
    """Our network -> its entries, by the names they have in it."""
    raw, fix = content.get(_STATE), "Give the published file, with its networks in state_dict"
    if not isinstance(raw, Mapping):
        raise CheckpointError(must(where, f"be a checkpoint of {METHOD}", told(content), advice(content, fix)))
    parts: dict[str, dict[str, Any]] = {}
    foreign = []
    for name, value in raw.items():
        first, _, key = str(name).partition(".")
        if first in NETWORKS:
            parts.setdefault(NETWORKS[first], {})[key] = value
        else:
            foreign.append(shown(name))
    if foreign or "encoder" not in parts:
        listed = ", ".join((foreign or [shown(name) for name in raw])[:_SHOWN])
        got = f"{len(raw)} entries, among them {listed}, ..." if raw else "no entries"
        raise CheckpointError(must(f"{where}: {_STATE}", f"hold {METHOD}'s encoder and decoder alone", got, fix))
    return parts


def _config(states: States, where: str) -> FaceConfig:
    """From the entries' shapes."""
    state = states["encoder"]
    telling = ("input_layer.0.weight", "body.0.res_layer.1.weight", "styles.0.convs.0.weight", "styles.0.linear.weight")
    missing = [name for name in telling if name not in state or state[name].ndim < 2]
    if missing:
        listed = ", ".join(map(shown, list(state)[:_SHOWN]))
        got = f"no {', '.join(missing)} among {len(state)} entries ({listed}, ...)"
        raise CheckpointError(must(f"{where}: encoder", "be a gradual style encoder of pSp with an IR-SE50", got, _FIX))
    num_styles = _count(state, "styles.{}.linear.weight")
    units = [state[f"body.{unit}.res_layer.1.weight"] for unit in range(_count(state, "body.{}.res_layer.1.weight"))]
    halvings = _count(state, "styles.0.convs.{}.weight", step=2)
    inside = states.get("generator")
    base = {} if inside is None else asdict(config_of(inside, where=f"{where}: decoder"))
    size_px = 2 ** min(num_styles // 2 + 1, 20)
    if base and base["size_px"] != size_px:
        got = f"{num_styles} codes for {size_px} px, and a decoder of {base['size_px']} px"
        raise CheckpointError(must(where, "hold an encoder and a decoder that fit", got, _FIX))
    found = {
        "size_px": size_px,
        "style_dim": state["styles.0.linear.weight"].shape[0],
        "structure_layers": min(FaceConfig().structure_layers, num_styles // 2 * 2 - 1),
        "encoder_px": 16 * 2 ** min(halvings, 16),
        "encoder_width": state["input_layer.0.weight"].shape[0],
        "encoder_units": tuple(
            len(list(alike)) for _, alike in groupby(len(unit) if unit.ndim else 0 for unit in units)
        ),
    }
    try:
        return FaceConfig(**{**base, **found})
    except ParamsError as error:
        raise CheckpointError(must(f"{where}: encoder", "be pSp's", str(error).rstrip("."), _FIX)) from error


def _mean(content: Mapping[str, Any], config: FaceConfig, where: str) -> Tensor:
    """The saved mean, one code for each layer, (S, D); zeros without one."""
    shape = (config.num_styles, config.style_dim)
    value = content.get(MEAN)
    if value is None:
        return torch.zeros(shape)
    reason = sound_tensor(value)
    if reason is None and tuple(value.shape) not in (shape, (1, *shape), shape[1:], (1, *shape[1:])):
        reason = f"shape {tuple(value.shape)}"
    if reason is not None:
        rule = f"be one code of {shape[1]} numbers, or {shape[0]} of them"
        raise CheckpointError(must(f"{where}: {MEAN}", rule, reason, _FIX))
    return value.detach().float().reshape(-1, shape[1]).expand(shape).clone()  # type: ignore[no-any-return]


def _adds_mean(content: Mapping[str, Any]) -> bool:
    options = content.get(_OPTIONS)
    return isinstance(options, Mapping) and options.get(_ADDED) is True and content.get(MEAN) is not None


def _told(adds: bool, has_mean: bool) -> str:
    if adds:
        return f"{MEAN} is added to the codes, as the file's {_OPTIONS} say"
    return f"{MEAN} is not added to the codes: the file's {_OPTIONS} don't say so" if has_mean else f"without {MEAN}"


def _account(name: str, given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Account:
    """Compare a network's entries with those that shall take them, without counters of batches."""
    own = {key: value for key, value in wanted.items() if not _is_counter(key)}
    kept = {key: value for key, value in given.items() if not _is_counter(key)}
    published = {ours: theirs for theirs, ours in NETWORKS.items()}[name]
    return replace(account("generator", kept, own), network=name, published=f"{_STATE}: {published}")


def _in_order(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict in the network's own order, with counters of batches at 0."""
    return {key: torch.zeros((), dtype=torch.long) if _is_counter(key) else state[key] for key in wanted}


def _options(config: FaceConfig, states: States, space: Space) -> tuple[OptionRow, ...]:
    mine, has_generator = asdict(config), "generator" in states
    shapes, published = "the tensors' shapes", "the published default"
    return (
        *(OptionRow(option=name, value=mine[name], source=shapes) for name in _SEEN),
        *(
            OptionRow(option=name, value=mine[name], source=shapes if has_generator else published)
            for name in _OF_GENERATOR
        ),
        OptionRow(option="space", value=space, source="you"),
    )


def _count(state: Mapping[str, Tensor], name: str, *, step: int = 1) -> int:
    number = 0
    while name.format(number * step) in state:
        number += 1
    return number


def _is_counter(key: str) -> bool:
    return str(key).endswith(COUNTER)
