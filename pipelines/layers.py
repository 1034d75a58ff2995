"""Dataclasses out of layers of plain mappings: merged, typed, checked, all errors at once."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from models.errors import ParamsError, Problem

T = TypeVar("T")
Layer = tuple[str, Mapping[str, Any]]
"""Dotted path and content of one section, weakest first in a list of layers."""


def build(cls: type[T], layers: list[Layer], where: str, problems: list[Problem]) -> T | None:
    """Merge layers into one dataclass, weakest first; null inherits.

    Args:
        cls: a frozen dataclass whose annotations say what each key may hold; nested dataclasses are merged key by key.
        layers: (dotted path, mapping) of every section that may set a key.
        where: path named for keys that nobody set.
        problems: receives each broken rule, with the path of the layer that set the value.

    Returns:
        The configuration, or None when ``problems`` grew.
    """
    hints = get_type_hints(cls)
    names = [entry.name for entry in dataclasses.fields(cls)]  # type: ignore[arg-type]
    before, values, origin = len(problems), {}, {}
    for path, mapping in layers:
        for key in mapping:
            if key not in names:
                problems.append(Problem(f"{path}.{key}", mapping[key], f"not be there; known here: {', '.join(names)}"))
    for name in names:
        setters = [(path, m[name]) for path, m in layers if name in m and m[name] is not None]
        if dataclasses.is_dataclass(hints[name]):
            values[name] = _nested(hints[name], setters, f"{where}.{name}", problems)
        elif setters:
            origin[name] = f"{setters[-1][0]}.{name}"
            values[name] = _typed(hints[name], setters[-1][1], origin[name], problems)
        elif _is_required(cls, name):
            problems.append(Problem(f"{where}.{name}", None, "be set"))
    wrong = len(problems) > before
    if wrong:  # check the rules of what is well typed all the same, so that all errors come at once
        values = {name: value for name, value in values.items() if value is not None}
        if any(_is_required(cls, name) and name not in values for name in names):
            return None
    try:
        made = cls(**values)
        return None if wrong else made
    except ParamsError as error:
        for problem in error.problems:
            problems.append(Problem(origin.get(problem.key, f"{where}.{problem.key}"), problem.value, problem.rule))
        return None


def mapping_of(path: str, value: Any, problems: list[Problem]) -> Mapping[str, Any]:
    """``value`` as a mapping with texts for keys; null is an empty one, and what is wrong is told once."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        _tell_once(Problem(path, value, "be a mapping"), problems)
        return {}
    named = {key: entry for key, entry in value.items() if isinstance(key, str)}
    for key in value:
        if key not in named:
            _tell_once(Problem(f"{path}.{key}", key, "have a text for a name; quote it"), problems)
    return named


def unknown_keys(path: str, section: Mapping[str, Any], known: Sequence[str]) -> list[Problem]:
    """A problem for each key that is none of those known."""
    rule = f"not be there; known here: {', '.join(known)}"
    return [Problem(f"{path}.{key}" if path else str(key), section[key], rule) for key in section if key not in known]


def last(layers: Sequence[Layer], key: str) -> Any:
    """What the strongest layer that sets a key says."""
    return next((layer[key] for _, layer in reversed(layers) if layer.get(key) is not None), None)


def without(layer: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """A layer without some keys."""
    return {key: value for key, value in layer.items() if key not in keys}


def one_length(layers: list[Layer]) -> list[Layer]:
    """Layers of a training in which the strongest that says how long it is, in steps or in epochs, stands alone.

    Whoever sets steps over published epochs means the steps, and the other way round; ``avd`` and a warm-up, among
    ``losses``, likewise. A layer that sets both keeps both.
    """
    layers = _one_length(layers, steps=("max_steps", "milestones"), epochs=("max_epochs", "milestone_epochs"))
    layers = _one_length_of("avd", layers, steps=("max_steps",), epochs=("max_epochs",))
    return _one_length_of("losses", layers, steps=("warm_up_steps",), epochs=("warm_up_epochs",))


def _tell_once(problem: Problem, problems: list[Problem]) -> None:
    if problem not in problems:
        problems.append(problem)


def _one_length_of(part: str, layers: list[Layer], *, steps: tuple[str, ...], epochs: tuple[str, ...]) -> list[Layer]:
    said = [(path, layer[part]) for path, layer in layers if isinstance(layer.get(part), Mapping)]
    lengths = dict(_one_length(said, steps=steps, epochs=epochs))
    return [(path, {**layer, part: lengths[path]} if path in lengths else layer) for path, layer in layers]


def _one_length(layers: list[Layer], *, steps: tuple[str, ...], epochs: tuple[str, ...]) -> list[Layer]:
    def says(place: int, keys: tuple[str, ...]) -> bool:
        return layers[place][1].get(keys[0]) is not None

    last = next((i for i in reversed(range(len(layers))) if says(i, steps) or says(i, epochs)), 0)
    if not layers or says(last, steps) == says(last, epochs):
        return layers
    dropped = epochs if says(last, steps) else steps
    weaker = [(path, {key: value for key, value in m.items() if key not in dropped}) for path, m in layers[:last]]
    return [*weaker, *layers[last:]]


def _nested(cls: Any, setters: list[Layer], where: str, problems: list[Problem]) -> Any:
    layers: list[Layer] = []
    for path, value in setters:
        key = f"{path}.{where.rsplit('.', 1)[-1]}"
        if isinstance(value, Mapping):
            layers.append((key, value))
        else:
            problems.append(Problem(key, value, "be a mapping"))
    return build(cls, layers, where, problems)


def _typed(hint: Any, value: Any, where: str, problems: list[Problem]) -> Any:
    """``value`` as the annotation wants it (ints pass for floats, lists for tuples), else a problem."""
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    for option in options:
        fits, converted = _convert(option, value)
        if fits:
            return converted
    problems.append(Problem(where, value, f"be {' or '.join(_words(option) for option in options)}"))
    return None


def _convert(hint: Any, value: Any) -> tuple[bool, Any]:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value in args, value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            return False, None
        item = args[0]
        parts = [_convert(item, part) for part in value]
        return all(fits for fits, _ in parts), tuple(part for _, part in parts)
    if hint is float and isinstance(value, str):  # YAML 1.1 reads 2e-4 as a string
        try:
            return True, float(value)
        except ValueError:
            return False, None
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and value == value, value
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool), value
    return isinstance(value, hint), value


def _words(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    if get_origin(hint) is tuple:
        return f"a list, each {_words(get_args(hint)[0])}"
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(hint, str(hint))


def _is_required(cls: Any, name: str) -> bool:
    entry = next(entry for entry in dataclasses.fields(cls) if entry.name == name)
    return entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
