"""Adam's state out of a published checkpoint, and into the optimisers of a training that starts from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from models.errors import CheckpointError, must
from models.importers.entries import States, is_kernel, parameters
from models.importers.layout import Layout
from models.importers.reading import sound_tensor

STATE_KEY = "imported"
"""Key of a checkpoint's state under which an import keeps what `moments_in` reads."""
_SCHEMA = 1
_PARTS = ("exp_avg", "exp_avg_sq")
_MAX_STEPS = 2**31
_AVERAGE = "ema."
_OPTIONAL = {"discriminator", "background_predictor", "avd", "augmentation", "path", "encoder"}
"""Networks that a checkpoint to start from may lack."""

Moments = dict[str, dict[str, dict[str, Tensor]]]
"""Our network -> parameter -> ``step`` (scalar), ``exp_avg`` and ``exp_avg_sq`` (of the parameter's shape), float32."""


@dataclass(slots=True, kw_only=True)
class Found:
    """What became of a checkpoint's optimisers."""

    moments: Moments = field(default_factory=dict)
    outcomes: dict[str, str] = field(default_factory=dict)
    """Published name of an optimiser -> a few words."""


def collect(content: Mapping[str, Any], states: States, layout: Layout) -> Found:
    """The optimisers' states that fit the networks' parameters. None is worth refusing the weights for.

    Args:
        content: of the file.
        states: the file's networks.
        layout: of the file.
    """
    found = Found()
    for theirs, networks in layout.optimisers.items():
        if theirs in content:
            order = [(name, entry) for name in networks if name in states for entry in parameters(states[name])]
            found.outcomes[theirs] = _take(content[theirs], order, states, found.moments)
    if layout.kind == "articulated":
        _forget_second_stage(content, found)
    return found


def state_of(moments: Moments, *, kind: str, epoch: int | None) -> dict[str, Any] | None:
    """What an imported checkpoint keeps beside its weights; None where no optimiser has ever stepped."""
    if not moments:
        return None
    return {STATE_KEY: {"schema_version": _SCHEMA, "kind": kind, "epoch": epoch, "moments": moments}}


def moments_in(state: Mapping[str, Any]) -> Moments:
    """The moments in a checkpoint's state; none unless an import has written it.

    Raises:
        CheckpointError: another version of inkmotion has written it.
    """
    imported = state.get(STATE_KEY)
    if imported is None:
        return {}
    if imported.get("schema_version") != _SCHEMA:
        rule = f"have schema_version {_SCHEMA}"
        raise CheckpointError(must("an import's state", rule, imported.get("schema_version"), "Import it again"))
    moments: Moments = imported["moments"]
    return moments


def restore(
    optimizers: Iterable[torch.optim.Optimizer], networks: Mapping[str, nn.Module], moments: Moments
) -> dict[str, int]:
    """Give optimisers the moments of the parameters that they train; rates and schedules stay their own.

    Args:
        optimizers: Adam, of any parameters of ``networks``.
        networks: filled with the weights that the moments belong to.
        moments: by network and parameter; those of parameters that nobody trains are left out.

    Returns:
        Network -> how many of its parameters have got theirs.

    Raises:
        CheckpointError: a moment does not have its parameter's shape.
    """
    if not moments:
        return {}
    known = {
        id(parameter): (name, entry, moments[name][entry])
        for name, network in networks.items()
        for entry, parameter in network.named_parameters()
        if entry in moments.get(name, {})
    }
    counts: dict[str, int] = {}
    for optimizer in optimizers:
        state = optimizer.state_dict()
        trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        for index, parameter in enumerate(trained):
            if id(parameter) in known:
                name, entry, given = known[id(parameter)]
                _check_shape(f"{name}.{entry}", given, parameter)
                state["state"][index] = {part: value.clone() for part, value in given.items()}
                counts[name] = counts.get(name, 0) + 1
        optimizer.load_state_dict(state)
    return counts


def startable(tensors: Mapping[str, Tensor], networks: Mapping[str, nn.Module]) -> tuple[dict[str, Tensor], set[str]]:
    """A checkpoint's tensors as a training of another size, or with more networks, can start from them.

    The anti-alias filters' kernels follow from the frames' size and are never trained: the networks keep their own. A
    discriminator of another make starts afresh: the published adversarial models go on from ones that had none, or an
    untrained one, and begin with their own.

    Args:
        tensors: of a checkpoint, by ``<network>.<entry>`` and ``ema.<network>.<entry>``.
        networks: that shall start from it.

    Returns:
        The tensors, and the networks of which the checkpoint holds nothing that fits and which may start afresh.
    """
    kept = {name: value for name, value in tensors.items() if not is_kernel(name)}
    judge = networks.get("discriminator")
    if judge is not None and not _fits(kept, "discriminator", judge):
        kept = {
            name: value for name, value in kept.items() if name.removeprefix(_AVERAGE).split(".")[0] != "discriminator"
        }
    for name, network in networks.items():
        own = {entry: value for entry, value in network.state_dict().items() if is_kernel(entry)}
        for prefix in (f"{name}.", f"{_AVERAGE}{name}."):
            if any(key.startswith(prefix) for key in kept):
                kept |= {f"{prefix}{entry}": value for entry, value in own.items()}
    begun = {name.partition(".")[0] for name in kept}
    return kept, (set(networks) & _OPTIONAL) - begun


def _fits(tensors: Mapping[str, Tensor], name: str, network: nn.Module) -> bool:
    """Whether all entries of a network are there, in their shapes, and no others."""
    held = {key.removeprefix(f"{name}."): value.shape for key, value in tensors.items() if key.startswith(f"{name}.")}
    return held == {key: value.shape for key, value in network.state_dict().items() if not is_kernel(key)}


def _take(raw: Any, order: Sequence[tuple[str, str]], states: States, into: Moments) -> str:
    """Put an optimiser's state into ``into`` if all of it fits; a few words about it."""
    try:
        groups = [list(group["params"]) for group in raw["param_groups"]]
        numbers, state = [number for group in groups for number in group], raw["state"]
        if len(numbers) != len(order):
            return f"not taken: it holds {len(numbers)} parameters, the networks have {len(order)}"
        pairs = [(place, state[number]) for place, number in zip(order, numbers, strict=True) if number in state]
    except (TypeError, LookupError, AttributeError):
        return "not taken: it is no optimiser's state"
    if not pairs:
        return "never stepped: nothing to take"
    taken: Moments = {}
    for (name, entry), given in pairs:
        moment = _moment(given, states[name][entry])
        if moment is None:
            return f"not taken: the state of {name}.{entry} is not Adam's, or not finite"
        taken.setdefault(name, {})[entry] = moment
    for name, moments in taken.items():
        into[name] = moments
    step = max(int(moment["step"]) for moments in taken.values() for moment in moments.values())
    return f"taken: {len(pairs)} of {len(order)} parameters, after {step} steps"


def _moment(given: Any, parameter: Tensor) -> dict[str, Tensor] | None:
    if not isinstance(given, Mapping) or any(sound_tensor(given.get(part)) for part in _PARTS):
        return None
    if any(given[part].shape != parameter.shape for part in _PARTS) or bool((given["exp_avg_sq"] < 0).any()):
        return None
    step = given.get("step")  # a number before torch 1.12, a tensor since
    if isinstance(step, Tensor):
        step = float(step) if step.numel() == 1 and sound_tensor(step) is None else None
    if isinstance(step, bool) or not isinstance(step, int | float) or not 0 < step < _MAX_STEPS:
        return None
    return {"step": torch.tensor(float(step)), **{part: given[part].detach().float().contiguous() for part in _PARTS}}


def _forget_second_stage(content: Mapping[str, Any], found: Found) -> None:
    """After the second stage the first stage's optimiser is lost: its name holds the second's."""
    if "avd_network" in content:
        found.moments.clear()
        lost = "not taken: once AVD is trained, its name holds the AVD stage's optimiser"
        found.outcomes = {name: lost for name in found.outcomes}


def _check_shape(name: str, given: Mapping[str, Tensor], parameter: Tensor) -> None:
    shapes = {tuple(given[part].shape) for part in _PARTS}
    if shapes != {tuple(parameter.shape)}:
        raise CheckpointError(must(f"the moments of {name}", f"have the shape {tuple(parameter.shape)}", shapes))
