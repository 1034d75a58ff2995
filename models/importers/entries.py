"""Entries of a published checkpoint by this project's names, each looked at before it is taken."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from models.errors import CheckpointError, must
from models.importers.layout import LAYOUTS, Layout, describe
from models.importers.reading import MAX_BYTES, shown, sound_tensor

COUNTER = "num_batches_tracked"
"""Published trainings never advanced these; some files lack them."""
_BUFFERS = ("running_mean", "running_var", COUNTER, "weight_u", "weight_v")
_WRAPPED = "module."
_MAX_ENTRIES = 100_000
_SHOWN = 3

States = dict[str, dict[str, Tensor]]
"""Our network -> our name of an entry -> float32 tensor, in the file's order; counters of batches are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entries:
    """The networks of a checkpoint."""

    states: States
    counters: Mapping[str, int]
    """Our network -> how many counters of batches were left out."""
    ignored: tuple[str, ...]
    """What else the checkpoint holds, but for optimisers and epochs."""
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What became of one network's entries."""

    network: str
    """Our name."""
    published: str
    taken: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    wrong: tuple[str, ...]
    """Of another shape, each with both shapes."""

    @property
    def is_whole(self) -> bool:
        """Whether everything fits."""
        return not (self.missing or self.unexpected or self.wrong)

    def problem(self) -> str:
        """What does not fit, in a few words."""
        parts = (("missing", self.missing), ("unexpected", self.unexpected), ("of another shape", self.wrong))
        listed = [f"{len(names)} {word} ({_few(names)})" for word, names in parts if names]
        return f"{self.published}: {', '.join(listed)}, {len(self.taken)} that fit"


def collect(content: Mapping[str, Any], layout: Layout, *, where: str) -> Entries:
    """The networks that a checkpoint holds, each tensor checked.

    Args:
        content: of the file.
        layout: the kind it shall be.
        where: names the file in errors.

    Raises:
        CheckpointError: it is of another method, or an entry is no sound tensor.
    """
    _check_kind(content, layout, where)
    states: States = {}
    counters, notes, num_bytes = {}, [], 0
    for theirs, ours in layout.networks.items():
        raw = content.get(theirs)
        if not isinstance(raw, Mapping) or not raw:  # an empty one is a network without entries, as AA's `zero` is
            continue
        state, is_wrapped = _unwrapped(raw, f"{where}: {theirs}")
        if is_wrapped:
            notes.append(f"{theirs} was saved in DataParallel: `{_WRAPPED}` is taken off its entries' names")
        kept = {key: value for key, value in state.items() if not key.endswith(COUNTER)}
        counters[ours] = len(state) - len(kept)
        num_bytes += sum(value.numel() * 4 for value in kept.values() if isinstance(value, Tensor))
        if num_bytes > MAX_BYTES:  # many entries may show the same memory
            got = f"{num_bytes / 2**30:.1f} GiB or more"
            raise CheckpointError(must(where, f"hold at most {MAX_BYTES / 2**30:.0f} GiB of numbers", got))
        if any(_is_other_type(value) for value in kept.values()):
            notes.append(f"{theirs} holds numbers of another type; they become float32")
        states[ours] = {
            layout.ours(ours, key): _sound(value, f"{where}: {theirs}.{key}") for key, value in kept.items()
        }
    known = {*layout.networks, *layout.optimisers, *layout.epochs}
    ignored = tuple(shown(name) for name in content if name not in known)
    return Entries(states=states, counters=counters, ignored=ignored, notes=tuple(notes))


def account(states: States, wanted: Mapping[str, Mapping[str, Any]], layout: Layout) -> list[Account]:
    """Compare every entry with the networks that shall take it.

    Args:
        states: of the file.
        wanted: our network -> its state dict (tensors on any device, meta too).
        layout: of the file.
    """
    published = {ours: theirs for theirs, ours in layout.networks.items()}
    return [_account(name, published.get(name, name), states.get(name, {}), wanted[name]) for name in wanted]


def refuse_unfit(accounts: Iterable[Account], *, where: str, fix: str) -> None:
    """Raise one error that accounts for every entry that does not fit.

    Raises:
        CheckpointError: there is one.
    """
    wrong = [one.problem() for one in accounts if not one.is_whole]
    if wrong:
        raise CheckpointError(must(where, "fit the networks entry by entry", "; ".join(wrong), fix))


def parameters(state: Iterable[str]) -> list[str]:
    """Names of a state dict's parameters in its order, which is an optimiser's order too."""
    return [name for name in state if not name.endswith(_BUFFERS) and not is_kernel(name)]


def is_kernel(name: str) -> bool:
    """Whether an entry is the fixed kernel of an anti-alias filter."""
    return name == "down.weight" or name.endswith(".down.weight")


def _check_kind(content: Mapping[str, Any], layout: Layout, where: str) -> None:
    found = describe(content)
    if found == layout.title:
        return
    kinds = {other.title: other.kind for other in LAYOUTS.values()}
    missing = [name for name in layout.required if not isinstance(content.get(name), Mapping)]
    others = f"Kinds of such files: {', '.join(kinds)}; those of faces have kinds of their own"
    fix = f"Give --kind {kinds[found]}" if found in kinds else others
    without = f", without {' and '.join(missing)}" if missing else ""
    article = "" if found not in kinds else "a checkpoint of "
    raise CheckpointError(must(where, f"be a checkpoint of {layout.title}", f"{article}{found}{without}", fix))


def _unwrapped(raw: Mapping[Any, Any], where: str) -> tuple[dict[str, Any], bool]:
    if len(raw) > _MAX_ENTRIES:
        raise CheckpointError(must(where, f"hold at most {_MAX_ENTRIES} entries", len(raw)))
    strange = next((key for key in raw if not isinstance(key, str)), None)
    if strange is not None:
        raise CheckpointError(must(where, "hold entries by name", shown(strange), "Give the file as it was published"))
    is_wrapped = all(key.startswith(_WRAPPED) for key in raw)
    return {key.removeprefix(_WRAPPED) if is_wrapped else key: value for key, value in raw.items()}, is_wrapped


def _sound(value: Any, where: str) -> Tensor:
    reason = sound_tensor(value)
    if reason is None and not value.is_floating_point():
        reason = f"of type {value.dtype}"
    if reason is not None:
        fix = "The file is damaged or of another method; get it again"
        raise CheckpointError(must(shown(where), "be a tensor of finite numbers", reason, fix))
    tensor: Tensor = value.detach().float().contiguous()
    return tensor


def _is_other_type(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.element_size() != 4


def _account(name: str, published: str, given: Mapping[str, Tensor], wanted: Mapping[str, Any]) -> Account:
    own = {key: tuple(value.shape) for key, value in wanted.items() if not key.endswith(COUNTER)}
    wrong = {key for key in own.keys() & given.keys() if tuple(given[key].shape) != own[key]}
    return Account(
        network=name,
        published=published,
        taken=tuple(key for key in given if key in own and key not in wrong),
        missing=tuple(key for key in own if key not in given),
        unexpected=tuple(key for key in given if key not in own),
        wrong=tuple(f"{key} {tuple(given[key].shape)} instead of {own[key]}" for key in own if key in wrong),
    )


def _few(names: tuple[str, ...]) -> str:
    listed = ", ".join(shown(name) for name in names[:_SHOWN])
    return f"{listed}, ..." if len(names) > _SHOWN else listed
