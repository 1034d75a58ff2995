"""The checkpoint format: a folder with the tensors, the training's state, and a manifest that is written last.

``weights.safetensors`` holds ``<network>.<entry>`` and ``ema.<network>.<entry>``; ``state.pt`` optimisers, schedulers,
counters and random state (absent in an exported model); ``manifest.json`` says what they are, with their checksums. A
folder without a manifest is no checkpoint.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pickle
import types
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from models.catalog import MODELS
from models.errors import CheckpointError, ParamsError, must
from models.families import NETWORKS, NetworkConfig
from training.config import TrainConfig
from training.families import TRAININGS
from training.job import load_callable

T = TypeVar("T")

SCHEMA_VERSION = 1
WEIGHTS, STATE, MANIFEST = "weights.safetensors", "state.pt", "manifest.json"
AVERAGE_PREFIX = "ema."
KEYS_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointInfo:
    """What a manifest says."""

    step: int
    images_seen: int
    preset: str
    model: NetworkConfig
    train: TrainConfig
    sha256: str
    """Of weights.safetensors."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    experiment: str = ""
    data: str = ""
    """sha256 of the shards' index."""
    state_sha256: str | None = None
    """Of state.pt; None in an exported model."""
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        return asdict(self)


def tensors_of(networks: Mapping[str, nn.Module], average: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """All tensors of a checkpoint by name, on the CPU and in memory of their own."""
    named = {f"{name}.{key}": value for name, net in networks.items() for key, value in net.state_dict().items()}
    named |= {f"{AVERAGE_PREFIX}{key}": value for key, value in (average or {}).items()}
    return {key: value.detach().to("cpu", copy=True).contiguous() for key, value in named.items()}


def write_checkpoint(
    folder: Path, info: CheckpointInfo, tensors: Mapping[str, Tensor], state: Mapping[str, Any] | None
) -> CheckpointInfo:
    """Fill a folder that nobody reads yet; the manifest is written last, and everything is on the disk at the end.

    Args:
        folder: an empty folder; renaming it is the caller's.
        info: the manifest; its checksums are filled in here.
        tensors: as `tensors_of` gives them.
        state: of optimisers and so on; None for an exported model.
    """
    safetensors.torch.save_file(dict(tensors), folder / WEIGHTS)
    (folder / WEIGHTS).chmod(0o644)  # safetensors makes it readable by its owner alone
    _sync(folder / WEIGHTS)
    sums = {WEIGHTS: file_sha256(folder / WEIGHTS)}
    if state is not None:
        torch.save(dict(state), folder / STATE)
        _sync(folder / STATE)
        sums[STATE] = file_sha256(folder / STATE)
    raw = {**info.to_json(), "sha256": sums[WEIGHTS], "state_sha256": sums.get(STATE)}
    (folder / MANIFEST).write_text(json.dumps(raw, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    _sync(folder / MANIFEST)
    _sync(folder)
    return info_from_json(raw, str(folder))


def read_info(folder: Path) -> CheckpointInfo:
    """Read a checkpoint's manifest.

    Raises:
        CheckpointError: there is none, or it is no manifest of this schema.
    """
    path = folder / MANIFEST
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        fix = "Name a folder that holds manifest.json and weights.safetensors"
        raise CheckpointError(must(str(path), "be readable", error.strerror or str(error), fix)) from None
    except ValueError as error:
        raise CheckpointError(must(str(path), "be JSON", str(error), "Use another checkpoint")) from None
    return info_from_json(raw, str(path))


def info_from_json(raw: Any, where: str) -> CheckpointInfo:
    """A manifest out of its JSON; ``where`` names it in errors."""
    version = raw.get("schema_version") if isinstance(raw, Mapping) else None
    if version != SCHEMA_VERSION:
        fix = "Use a checkpoint of this version of inkmotion"
        raise CheckpointError(must(where, f"have schema_version {SCHEMA_VERSION}", version, fix))
    preset = raw.get("preset")
    if not isinstance(preset, str) or preset not in MODELS:
        raise CheckpointError(must(f"{where}: preset", f"be one of {', '.join(MODELS)}", preset))
    family = MODELS[preset].family
    made = _from_json(CheckpointInfo, raw, where, model=NETWORKS[family], train=TRAININGS[family])
    counts, texts = (made.step, made.images_seen), (made.sha256, made.experiment, made.data)
    if not all(isinstance(count, int) and count >= 0 for count in counts) or not all(isinstance(t, str) for t in texts):
        raise CheckpointError(must(where, "hold whole numbers and texts", f"{counts} and {texts}"))
    return made


def load_networks(folder: Path, *, ema: bool = True) -> tuple[dict[str, nn.Module], CheckpointInfo]:
    """Build the networks of a checkpoint or exported model.

    Args:
        folder: of the checkpoint.
        ema: take the moving average where the checkpoint holds one; else the weights as trained.

    Returns:
        The networks by name, in eval mode on the CPU, and the manifest.

    Raises:
        CheckpointError: a file is missing or altered, the schema is another, or the entries do not fit the networks.
    """
    info = read_info(Path(folder))
    tensors = read_tensors(Path(folder), info)
    networks: dict[str, nn.Module] = load_callable(MODELS[info.preset].build)(info.model)
    fill(networks, tensors, ema=ema, where=str(folder))
    foreign = sorted(key for key in tensors if key.removeprefix(AVERAGE_PREFIX).partition(".")[0] not in networks)
    if foreign:
        got = ", ".join(foreign[:KEYS_SHOWN])
        raise CheckpointError(must(str(folder), f"hold only {', '.join(networks)}", got))
    for network in networks.values():
        network.eval().requires_grad_(False)
    return networks, info


def read_tensors(folder: Path, info: CheckpointInfo) -> dict[str, Tensor]:
    """The checked content of weights.safetensors."""
    _verify(folder / WEIGHTS, info.sha256)
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load_file(folder / WEIGHTS)
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(must(str(folder / WEIGHTS), "be a safetensors file", str(error))) from error
    return tensors


def read_state(folder: Path, info: CheckpointInfo) -> dict[str, Any]:
    """The checked content of state.pt; nothing but plain values and tensors is ever unpickled."""
    if info.state_sha256 is None:
        fix = "Use a checkpoint of a run folder; an exported model can only be fine-tuned (init_from)"
        raise CheckpointError(must(str(folder), "hold the training's state to be resumed", "weights only", fix))
    _verify(folder / STATE, info.state_sha256)
    try:
        state: dict[str, Any] = torch.load(folder / STATE, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        got = " ".join(str(error).split())[:200]
        raise CheckpointError(must(str(folder / STATE), "hold plain values and tensors", got)) from error
    return state


def fill(networks: Mapping[str, nn.Module], tensors: Mapping[str, Tensor], *, ema: bool, where: str) -> None:
    """Load a checkpoint's tensors into networks; entries of networks that are not asked for are left alone.

    Raises:
        CheckpointError: entries are missing, superfluous or of another shape, with their names.
    """
    for name, network in networks.items():
        averaged = ema and any(key.startswith(f"{AVERAGE_PREFIX}{name}.") for key in tensors)
        prefix = f"{AVERAGE_PREFIX if averaged else ''}{name}."
        own = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        wanted = {key: value.shape for key, value in network.state_dict().items()}
        problems = [f"missing {prefix}{key}" for key in sorted(wanted.keys() - own.keys())]
        problems += [f"superfluous {prefix}{key}" for key in sorted(own.keys() - wanted.keys())]
        problems += [
            f"{prefix}{key} {tuple(own[key].shape)} instead of {tuple(shape)}"
            for key, shape in wanted.items()
            if key in own and own[key].shape != shape
        ]
        if problems:
            more = f" and {len(problems) - KEYS_SHOWN} more" if len(problems) > KEYS_SHOWN else ""
            got = "; ".join(problems[:KEYS_SHOWN]) + more
            raise CheckpointError(must(where, f"fit the network {name!r}", got, "Use the checkpoint of this model"))
        network.load_state_dict(own)


def export_weights(checkpoint: Path, target: Path, *, first: CheckpointInfo | None = None) -> CheckpointInfo:
    """Write a checkpoint's weights and manifest, without the training's state, into the empty folder ``target``.

    Args:
        checkpoint: the folder to take from.
        target: the folder to fill.
        first: the manifest of the first stage, where ``checkpoint`` is of a second one: steps, settings and figures
            are the first stage's, which trained what is judged.
    """
    info = read_info(checkpoint)
    tensors = read_tensors(checkpoint, info)
    if first is not None:
        kept = {"step": first.step, "images_seen": first.images_seen, "train": first.train, "metrics": first.metrics}
        info = dataclasses.replace(info, **kept)  # type: ignore[arg-type]
    return write_checkpoint(target, info, tensors, None)


def file_sha256(path: Path) -> str:
    """Of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _verify(path: Path, sha256: str) -> None:
    try:
        found = file_sha256(path)
    except OSError as error:
        raise CheckpointError(must(str(path), "be readable", error.strerror or str(error))) from None
    if found != sha256:
        fix = "The file was altered or cut off; use another checkpoint"
        raise CheckpointError(must(str(path), f"have the manifest's sha256 {sha256[:12]}", found[:12], fix))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _from_json(cls: type[T], raw: Any, where: str, **kinds: type) -> T:
    """A configuration dataclass out of JSON: lists become tuples, nested dicts nested dataclasses.

    ``kinds`` says of which class an entry is, where its annotation leaves a choice.
    """
    if not isinstance(raw, Mapping):
        raise CheckpointError(must(where, "be a mapping", type(raw).__name__))
    hints, names = get_type_hints(cls) | kinds, [entry.name for entry in fields(cls)]  # type: ignore[arg-type]
    unknown = sorted(set(raw) - set(names))
    if unknown:
        raise CheckpointError(must(where, f"hold only {', '.join(names)}", ", ".join(map(str, unknown))))
    values = {name: _value(hints[name], value, f"{where}: {name}") for name, value in raw.items()}
    try:
        return cls(**values)
    except ParamsError as error:
        got = "; ".join(map(str, error.problems))
        raise CheckpointError(must(where, "be valid", got)) from None
    except TypeError as error:
        raise CheckpointError(must(where, "be complete", str(error))) from None


def _value(hint: Any, value: Any, where: str) -> Any:
    if is_dataclass(hint):
        return _from_json(hint, value, where)  # type: ignore[arg-type]
    options: Iterable[Any] = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if isinstance(value, list) and any(get_origin(option) is tuple for option in options):
        return tuple(value)
    return value
