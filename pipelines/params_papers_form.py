"""What form a paper's params file must have; what its settings must be is the configuration classes' matter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from models.errors import Problem

SECTIONS = (
    "seeds",
    "trained_on",
    "profiles",
    "datasets",
    "all_rows",
    "rows",
    "methods",
    "experiments",
    "dualstyles",
    "tables",
)
PROFILE_SECTIONS = ("datasets", "published", "model", "train", "rows", "methods")
SAID_BY_NAMES = ("seed", "dataset")
MAX_FILE_BYTES = 1 << 20
MAX_EXPERIMENTS = 1000


def read_mapping(path: Path) -> Mapping[str, Any]:
    """A YAML file that holds a mapping.

    Raises:
        ValueError: it is none, or can't be read; the message is one line that says why.
    """
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise ValueError(f"{size} bytes, of which {MAX_FILE_BYTES} are read")
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("values nested too deeply") from None
    except (LookupError, AttributeError) as error:  # PyYAML's, of a tag whose value does not fit
        raise ValueError(f"a value that does not fit its tag ({error})") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValueError(" ".join(str(error).split())[:300]) from None
    if not isinstance(raw, Mapping):
        raise ValueError(f"a {type(raw).__name__} in place of a mapping")
    return raw


def is_plain(name: Any) -> bool:
    """Whether a name may be a folder's and a stage's."""
    plain = isinstance(name, str) and name != "" and name[0] != "-"
    return plain and all(letter.isalnum() or letter in "-_" for letter in name)


def wrong_sections(where: str, raw: Mapping[str, Any]) -> Iterator[Problem]:
    """What is wrong with the form of a file's content, ``where`` being its path."""
    for key in raw:
        if key not in SECTIONS:
            yield Problem(f"{where}: {key}", raw[key], f"not be there; known here: {', '.join(SECTIONS)}")
    yield from _wrong_lists(where, raw)
    found = {key: raw.get(key) or {} for key in SECTIONS if key not in ("seeds", "trained_on")}
    for key, section in found.items():
        if not isinstance(section, Mapping):
            yield Problem(f"{where}: {key}", section, "be a mapping")
            return
    for kind in ("rows", "methods", "datasets", "experiments", "dualstyles", "tables"):
        yield from _wrong_entries(f"{where}: {kind}", found[kind])
    yield from _wrong_settings(f"{where}: all_rows", found["all_rows"])
    yield from _wrong_rows(f"{where}: rows", found["rows"])
    yield from _wrong_rows(f"{where}: methods", found["methods"])
    for name, profile in found["profiles"].items():
        yield from _wrong_profile(f"{where}: profiles.{name}", profile, [*map(str, found["rows"])])


def _wrong_settings(where: str, entry: Any) -> Iterator[Problem]:
    """What no part of a training's description may say, for its name says it."""
    for key in SAID_BY_NAMES:
        if isinstance(entry, Mapping) and key in entry:
            yield Problem(f"{where}.{key}", entry[key], "not be there; seeds and trained_on say it")


def _wrong_rows(where: str, entries: Any) -> Iterator[Problem]:
    for name, entry in entries.items() if isinstance(entries, Mapping) else ():
        yield from _wrong_settings(f"{where}.{name}", entry)


def _wrong_entries(where: str, entries: Mapping[Any, Any]) -> Iterator[Problem]:
    for name, entry in entries.items():
        if not is_plain(name):
            yield Problem(where, name, "have names of letters, digits, '-' or '_' only")
        if not isinstance(entry, Mapping):
            yield Problem(f"{where}.{name}", entry, "be a mapping")


def _wrong_lists(where: str, raw: Mapping[str, Any]) -> Iterator[Problem]:
    seeds, names = raw.get("seeds"), raw.get("trained_on")
    if seeds is None and names is None and not raw.get("rows") and not raw.get("methods"):
        return  # named experiments alone
    if not _is_list(seeds, int) or min(seeds) < 0:
        yield Problem(f"{where}: seeds", seeds, "be a list of different whole numbers, 0 or more")
    elif not _is_list(names, str):
        yield Problem(f"{where}: trained_on", names, "be a list of different data sets")
    elif (number := _size(raw.get("rows")) * len(names) * len(seeds)) > MAX_EXPERIMENTS:
        yield Problem(f"{where}: rows", number, f"make at most {MAX_EXPERIMENTS} trainings with seeds and trained_on")


def _is_list(value: Any, kind: type) -> TypeGuard[list[Any]]:
    """A list of different values of one kind, at least one."""
    if not isinstance(value, list) or not value or not all(type(item) is kind for item in value):
        return False
    return len(set(value)) == len(value)


def _wrong_profile(where: str, profile: Any, rows: list[str]) -> Iterator[Problem]:
    if not isinstance(profile, Mapping):
        yield Problem(where, profile, "be a mapping")
        return
    for key, entry in profile.items():
        if key not in PROFILE_SECTIONS:
            yield Problem(f"{where}.{key}", entry, f"not be there; known here: {', '.join(PROFILE_SECTIONS)}")
        elif entry is not None and not isinstance(entry, Mapping):
            yield Problem(f"{where}.{key}", entry, "be a mapping")
    yield from _wrong_settings(f"{where}.train", profile.get("train"))
    yield from _wrong_settings(f"{where}.methods", profile.get("methods"))
    yield from _wrong_rows(f"{where}.rows", profile.get("rows"))
    for kind in ("datasets", "rows"):
        chosen = profile.get(kind)
        for name, entry in chosen.items() if isinstance(chosen, Mapping) else ():
            if kind == "rows" and name not in rows:
                yield Problem(f"{where}.rows", name, f"name rows; known: {', '.join(rows)}")
            if entry is not None and not isinstance(entry, Mapping):
                yield Problem(f"{where}.{kind}.{name}", entry, "be a mapping")


def _size(value: Any) -> int:
    return len(value) if isinstance(value, Mapping) else 0
