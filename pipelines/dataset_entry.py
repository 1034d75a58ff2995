"""A new data set in params.yaml: its lines are put in, and every other byte stays as it is."""

from __future__ import annotations

import copy
import inspect
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast, get_args

import yaml

from models.contracts import Kind
from models.errors import ParamsError, Problem, SourceError
from pipelines.params import parse
from pipelines.stage import write_text
from preprocessing.config import DatasetConfig, SplitRule
from preprocessing.datasets.catalog import DATASETS
from preprocessing.datasets.local import LocalFolder
from preprocessing.datasets.spec import DatasetSpec, Item
from preprocessing.splits import MIN_IDENTITIES, identity_of

_KEYS = tuple(field.name for field in fields(DatasetConfig))
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")
_FOLDER_PATTERN = "^(.+?)--"
"""A file's name in data/raw begins with its folder's and two dashes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Choice:
    """How a data set is split, and why."""

    split: SplitRule | None = None
    pattern: str | None = None
    why: str


def add(
    params_file: Path,
    name: str,
    *,
    path: Path | None = None,
    kind: str | None = None,
    preset: str | None = None,
    split: str | None = None,
) -> str:
    """Write a data set into params.yaml: a whole entry, with null where it inherits. All other lines stay as they are.

    DVC tracks ``profiles.<profile>.datasets.<name>``, so each profile gets a line for it, too.

    Args:
        params_file: the project's params.yaml.
        name: of the new data set.
        path: folder with the media; relative to the current one.
        kind: ``faces``, ``bodies``, ``cartoons``, ``images`` or ``film``; with ``preset``: None, or the same as its.
        preset: name of a public data set that it is.
        split: rule of the split; None: the public data set's, else by what is in the folder.

    Returns:
        What was written and what to run next.

    Raises:
        ParamsError: everything that is wrong with the name, the path, the kind, or the file as it is.
    """
    params_file = params_file.resolve()
    text, raw = _read(params_file)
    folder = Path(path).expanduser().absolute() if path is not None else None
    spec = _checked(raw.get("datasets") or {}, name, folder=folder, kind=kind, preset=preset, split=split)
    seen = str(spec.kind if spec is not None else kind)
    choice = _chosen(folder, seen, spec, split)
    entry = _entry(params_file.parent, folder, seen, spec, choice)
    new = _with(text, raw, name, entry)
    _check_result(new, raw, name, entry)
    write_text(params_file, new)
    return _told(name, entry, spec, choice)


def _read(params_file: Path) -> tuple[str, Mapping[str, Any]]:
    try:
        with params_file.open(encoding="utf-8", newline="") as file:
            text = file.read()
        raw = _loaded(text)
    except FileNotFoundError:
        raise ParamsError(
            [Problem(str(params_file), "no file", "exist; run the command in the project's folder")]
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParamsError([Problem(str(params_file), " ".join(str(error).split()), "be readable YAML")]) from None
    parse(raw)
    return text, raw


def _checked(
    known: Mapping[str, Any],
    name: str,
    *,
    folder: Path | None,
    kind: str | None,
    preset: str | None,
    split: str | None,
) -> DatasetSpec | None:
    """See that the wishes can be met; all that is wrong comes at once."""
    spec = DATASETS.get(preset) if preset is not None else None
    plain, splits = bool(_NAME.fullmatch(name)), get_args(SplitRule)
    kinds = (spec.kind,) if spec is not None else get_args(Kind)
    given = str(folder) if folder is not None else None
    rules = (
        (plain, "name", name, "be letters, digits, '-' or '_', at most 64 and not '-' first"),
        (not plain or _is_text(name), "name", name, "be text to YAML, no number, date, null or yes and no"),
        (name not in known, f"datasets.{name}", "an entry", "not be there already; take another name, or edit it"),
        (preset is None or spec is not None, "--preset", preset, f"be one of {', '.join(DATASETS)}"),
        (bool(folder or preset), "--path", None, "name a folder with media, or --preset a public data set"),
        (folder is None or folder.is_dir(), "--path", given, "be a folder that exists"),
        (_is_shown(given or ""), "--path", given, "have printable characters alone, and no ${"),
        (kind in kinds or preset is not None and kind is None, "--kind", kind, f"be one of {', '.join(kinds)}"),
        (split in (None, *splits), "--split", split, f"be one of {', '.join(splits)}"),
    )
    problems = [Problem(key, value, rule) for holds, key, value, rule in rules if not holds]
    if problems:
        raise ParamsError(problems)
    return spec


def _is_text(name: str) -> bool:
    """Whether a bare word is a text to YAML 1.1 (ours) and 1.2 (DVC's)."""
    return all(isinstance(value, str) for value in (yaml.safe_load(name), _yaml12(name)))


def _is_shown(path: str) -> bool:
    return path.isprintable() and "${" not in path


def _loaded(text: str) -> Any:
    """A text as `pipelines.params` reads it, by the C parser where there is one."""
    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def _yaml12(text: str) -> Any:
    from ruamel.yaml import YAML

    return YAML(typ="safe", pure=True).load(text)


def _chosen(folder: Path | None, kind: str, spec: DatasetSpec | None, split: str | None) -> _Choice:
    """The split that fits what is in the folder; a look at the names alone, `datasets check` looks at the files."""
    if split is not None:
        return _Choice(split=cast(SplitRule, split), why="as asked for")
    if spec is not None:
        return _Choice(why=f"split: {spec.settings.get('split', 'source')}, as {spec.name} has it")
    items = _items(folder)
    sides = {item.split for item in items}
    if sides == {"train", "test"}:
        return _Choice(split="official", why="every file lies in a folder train or test")
    if kind == "images":
        return _Choice(split="source", why=f"{len(items)} pictures, each on one side")
    if kind == "film":
        return _Choice(split="time", why="the end of a film is tested")
    if len(items) < 2:
        return _Choice(split="time", why=f"{len(items) or 'no'} file is there yet: the end of each is tested")
    people = {identity_of(item.name, _FOLDER_PATTERN) for item in items}
    folders = {Path(item.origin).parts[0] for item in items}
    if MIN_IDENTITIES <= len(folders) == len(people) < len(items):
        why = f"{len(folders)} folders with {len(items)} files: each folder counts as one identity"
        return _Choice(split="identity", pattern=_FOLDER_PATTERN, why=why)
    return _Choice(split="source", why=f"{len(items)} files, each on one side; name people by identity_pattern")


def _items(folder: Path | None) -> list[Item]:
    try:
        found = LocalFolder(folder, dataset="it").items() if folder is not None else []
    except SourceError:
        return []
    return [item for item in found if item.problem is None]


def _entry(root: Path, folder: Path | None, kind: str, spec: DatasetSpec | None, choice: _Choice) -> dict[str, Any]:
    """Every key of a data set, in the order of `DatasetConfig`, null where it inherits."""
    source = _below(root, folder) if folder is not None else None
    makes = "stills" if kind in ("images", "film") else "clips"
    values: dict[str, Any] = {"watch": source or _watched(root, spec), **dict.fromkeys(_KEYS)}
    values |= {"kind": kind, "preset": spec.name if spec else None, "source": source}
    values |= {"makes": spec.settings.get("makes", makes) if spec else makes}
    values |= {"split": choice.split, "identity_pattern": choice.pattern}
    return values


def _below(root: Path, path: Path) -> str:
    """A path as params.yaml has it: relative where it lies in the project."""
    path = Path(os.path.normpath(path))
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def _watched(root: Path, spec: DatasetSpec | None) -> str:
    """What DVC watches where there is no folder: the file that says where the media come from."""
    assert spec is not None, "without a folder there is a public data set"
    return _below(root, Path(str(inspect.getsourcefile(spec.listing))).resolve())


def _with(text: str, raw: Mapping[str, Any], name: str, entry: Mapping[str, Any]) -> str:
    """The file's text with the new lines in it."""
    from ruamel.yaml import YAML

    document = YAML(typ="rt").load(text)
    places = [_place(text, document, ("datasets",), [f"{name}:", *(f"  {line}" for line in _lines(entry))])]
    for profile in raw["profiles"]:
        here, mapping = ("profiles", profile, "datasets"), document["profiles"][profile]
        if "datasets" in mapping:
            places.append(_place(text, document, here, [f"{name}: {{}}"]))
        else:
            places.append(_place(text, document, here[:2], ["datasets:", f"  {name}: {{}}"]))
    lines = text.split("\n")
    end = "\r" if "\r\n" in text else ""
    if lines[-1]:  # no newline at the end
        lines[-1] += end
        lines.append("")
    for number, new in sorted(places, reverse=True):
        lines[number:number] = [line + end for line in new]
    return "\n".join(lines)


def _lines(entry: Mapping[str, Any]) -> list[str]:
    dumped = {
        key: yaml.safe_dump(value, allow_unicode=True, width=10_000).split("\n")[0] for key, value in entry.items()
    }
    return [f"{key}: {value}" for key, value in dumped.items()]


def _place(text: str, document: Any, keys: Sequence[str], new: Sequence[str]) -> tuple[int, list[str]]:
    """Behind which line of the file new lines of a mapping go, and these lines with their indent.

    Args:
        text: of the file.
        document: the same, read by ruamel.
        keys: where the mapping is.
        new: what is added at its end.
    """
    parent = document
    for key in keys[:-1]:
        parent = parent[key]
    mapping, (line, column) = parent[keys[-1]], parent.lc.key(keys[-1])
    if mapping is not None and (not hasattr(mapping, "fa") or mapping.fa.flow_style() or "<<" in keys):
        rule = "be a mapping with a line for each key, so that one can be added"
        raise ParamsError([Problem(".".join(keys), "one in braces", rule)])
    indent = mapping.lc.key(next(iter(mapping)))[1] if mapping else column + 2
    lines, last = text.split("\n"), line
    for number in range(line + 1, len(lines)):
        stripped = lines[number].strip()
        depth = len(lines[number]) - len(lines[number].lstrip(" "))
        if stripped and depth <= column and not stripped.startswith("#"):
            break
        if stripped and depth > column:
            last = number
    return last + 1, [" " * indent + one for one in new]


def _check_result(new: str, raw: Mapping[str, Any], name: str, entry: Mapping[str, Any]) -> None:
    """See that the new text holds what the old one did and the new data set, and is valid in each profile."""
    expected = copy.deepcopy(dict(raw))
    expected["datasets"] = {**(expected["datasets"] or {}), name: dict(entry)}
    for profile in expected["profiles"].values():
        profile["datasets"] = {**(profile.get("datasets") or {}), name: {}}
    found = _loaded(new)
    if found != expected or _yaml12("\n".join(_lines(entry))) != dict(entry):
        raise ParamsError(
            [Problem("params.yaml", "another form", "have its data sets as the one of a new project has")]
        )
    problems = []
    for profile in expected["profiles"]:
        try:
            parse({**found, "profile": profile})
        except ParamsError as error:
            problems += [problem for problem in error.problems if f"datasets.{name}" in problem.key]
    if problems:
        raise ParamsError(problems)


def _told(name: str, entry: Mapping[str, Any], spec: DatasetSpec | None, choice: _Choice) -> str:
    by_hand = spec is not None and not spec.remotes and entry["source"] is None
    place = entry["source"] or ("a folder that is to be named" if by_hand else "its own addresses")
    lines = [f"Added {name} to params.yaml: {entry['kind']} from {place}{f', as {spec.name}' if spec else ''}."]
    lines.append(f"Split: {choice.split or 'inherited'} ({choice.why}); datasets.{name}.split changes it.")
    if by_hand:
        lines.append(f"Its media are had by hand, as the first command says; then set datasets.{name}.source.")
    terms = " --accept-terms" if spec is not None and entry["source"] is None and not by_hand else ""
    steps = [f"datasets show {spec.name}"] if spec is not None else []
    steps += [f"datasets check {name}"] if entry["source"] or by_hand else []
    steps += [f"download {name}{terms}", f"ledger {name}", f"cut {name}", f"shard {name}"]
    return "\n".join([*lines, "Next:", *(f"  inkmotion {step}" for step in steps)])
