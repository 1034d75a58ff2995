"""The papers' own params files, ``papers/<paper>/params.yaml``: sparse, read by pipelines/params.py beside its own.

A paper's file names rows; each row is trained on each of the paper's data sets with each of its seeds, as the
experiment ``<row>-on-<dataset>-seed<k>``. Its ``experiments`` are trainings with names of their own, which are too long
for the project's own graph. Their reports stay apart from the project's, in ``reports/papers``.

Precedence, weakest first, over what params.yaml says for all experiments: ``all_rows``, ``profiles.<profile>.model``
and ``.train``, ``rows.<row>``, ``profiles.<profile>.rows.<row>``; ``experiments.<name>``. A null inherits.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import yaml

from models.errors import ParamsError, Problem
from pipelines.layers import Layer
from pipelines.table_config import TableConfig, tables_of
from preprocessing.config import DatasetConfig

if TYPE_CHECKING:
    from pipelines.params import ExperimentConfig

FOLDER = Path("papers")
SECTIONS = ("seeds", "trained_on", "profiles", "datasets", "all_rows", "rows", "experiments", "tables")
PROFILE_SECTIONS = ("datasets", "published", "model", "train", "rows")
SAID_BY_NAMES = ("seed", "dataset")
MAX_FILE_BYTES = 1 << 20
MAX_EXPERIMENTS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Paper:
    """One paper's trainings and tables, resolved for the chosen profile."""

    name: str
    seeds: tuple[int, ...]
    datasets: dict[str, DatasetConfig]
    """Those that only this paper needs."""
    experiments: dict[str, ExperimentConfig]
    rows: dict[tuple[str, str], tuple[str, ...]]
    """(row, data set) -> its experiments, in the order of the seeds."""
    tables: dict[str, TableConfig]
    named: tuple[str, ...] = ()
    """Those of the experiments that belong to no row."""

    def folders(self) -> Iterator[tuple[str, str]]:
        """(name, where its reports are below reports/) of each data set and experiment."""
        for name in (*self.datasets, *self.named):
            yield name, f"{FOLDER}/{self.name}/{name}"
        for (row, dataset), names in self.rows.items():
            for seed, name in zip(self.seeds, names, strict=True):
                yield name, f"{FOLDER}/{self.name}/{row}-on-{dataset}/seed{seed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperFile:
    """The content of one file, not resolved yet; its sections are mappings."""

    name: str
    where: str
    """Path below the project's root, for messages."""
    raw: Mapping[str, Any]

    def key(self, *parts: str) -> str:
        """Path of a key, with the file's name."""
        return f"{self.where}: {'.'.join(parts)}"

    def section(self, *parts: str) -> Mapping[str, Any]:
        """A mapping of the file; empty where there is none."""
        value: Any = self.raw
        for part in parts:
            value = value.get(part) if isinstance(value, Mapping) else None
        return value if isinstance(value, Mapping) else {}

    @property
    def seeds(self) -> tuple[int, ...]:
        """One training of each row for each."""
        return tuple(self.raw.get("seeds") or ())

    @property
    def trained_on(self) -> tuple[str, ...]:
        """Data sets on which each row is trained."""
        return tuple(self.raw.get("trained_on") or ())

    def trainings(self) -> Iterator[tuple[str, str, tuple[str, ...]]]:
        """(row, data set, experiments' names) of all that is trained."""
        for row, dataset in itertools.product(self.section("rows"), self.trained_on):
            yield row, dataset, tuple(f"{row}-on-{dataset}-seed{seed}" for seed in self.seeds)

    def named(self) -> Iterator[tuple[str, list[Layer]]]:
        """(name, what describes it) of each training that belongs to no row."""
        for name in self.section("experiments"):
            yield name, [(self.key("experiments", name), self.section("experiments", name))]

    def dataset_layers(self, name: str, profile: str) -> list[Layer]:
        """What describes a data set of the file's own, weakest first."""
        places = (("profiles", profile, "datasets", name), ("datasets", name))
        return [(self.key(*place), self.section(*place)) for place in places]

    def layers(self, row: str, dataset: str, profile: str) -> list[Layer]:
        """What describes a row's training, weakest first."""
        places: list[tuple[str, ...]] = [("all_rows",), ("profiles", profile, "train"), ("rows", row)]
        places.append(("profiles", profile, "rows", row))
        made = [(self.key(*place), self.section(*place)) for place in places]
        model = {"model": self.section("profiles", profile, "model")}
        made.insert(1, (self.key("profiles", profile), model))
        own = {"dataset": dataset, "seed": None}
        return [(path, {**layer, **own} if path == self.key("rows", row) else layer) for path, layer in made]


def read_papers(root: Path) -> list[PaperFile]:
    """Read ``papers/*/params.yaml`` below the project's root, in order of their names.

    Raises:
        ParamsError: a file that can't be read, or whose sections are not what they must be.
    """
    files, problems = [], []
    for path in sorted((root / FOLDER).glob("*/params.yaml")):
        where = path.relative_to(root).as_posix()
        try:
            raw = read_mapping(path)
        except ValueError as error:
            problems.append(Problem(where, str(error), "be readable YAML"))
            continue
        found = [*_wrong_sections(where, raw)]
        problems += found
        if not found:
            files.append(PaperFile(name=path.parent.name, where=where, raw=raw))
    if problems:
        raise ParamsError(problems)
    return files


def resolve(
    file: PaperFile,
    profile: str,
    problems: list[Problem],
    *,
    dataset: Callable[[str, list[Layer]], DatasetConfig | None],
    experiment: Callable[[list[Layer], Mapping[str, Any]], ExperimentConfig | None],
) -> Paper:
    """A paper's data sets, trainings and tables.

    Args:
        file: the paper's.
        profile: the one chosen.
        problems: receives what is wrong.
        dataset: makes a data set of a name and what the file says of it.
        experiment: makes an experiment of what the file says of it, and of its published settings by data set.
    """
    if profile not in file.section("profiles"):
        problems.append(Problem(file.key("profiles", profile), None, "be there, if only as an empty mapping"))
    own = [*file.section("datasets")]
    for name in file.section("profiles", profile, "datasets"):
        if name not in own:
            rule = f"not be there; known here: {', '.join(own) or 'none'}"
            problems.append(Problem(file.key("profiles", profile, "datasets", str(name)), None, rule))
    datasets = {name: dataset(name, file.dataset_layers(name, profile)) for name in own}
    published = file.section("profiles", profile, "published")
    experiments: dict[str, ExperimentConfig] = {}
    for row, data, names in file.trainings():
        made = experiment(file.layers(row, data, profile), published)
        if made is not None:  # resolved once; its seeds change nothing else
            seeded = (replace(made, train=replace(made.train, seed=seed)) for seed in file.seeds)
            experiments.update(zip(names, seeded, strict=True))
    named = {name: experiment(layers, published) for name, layers in file.named()}
    experiments |= {name: made for name, made in named.items() if made is not None}
    return Paper(
        name=file.name,
        seeds=file.seeds,
        datasets={name: config for name, config in datasets.items() if config is not None},
        experiments=experiments,
        rows={(row, data): names for row, data, names in file.trainings()},
        tables=tables_of(file, problems),
        named=tuple(named),
    )


def check_papers(files: Sequence[PaperFile], datasets: Sequence[str], experiments: Sequence[str]) -> list[Problem]:
    """What is wrong with the files together: names that are taken, rows that no file trains.

    Args:
        files: all of them.
        datasets: names that params.yaml holds.
        experiments: likewise.
    """
    problems: list[Problem] = []
    taken = {
        "datasets": dict.fromkeys(datasets, "params.yaml"),
        "experiments": dict.fromkeys(experiments, "params.yaml"),
    }
    for file in files:
        names = [("datasets", name) for name in file.section("datasets")]
        names += [("experiments", name) for _, _, group in file.trainings() for name in group]
        names += [("experiments", name) for name, _ in file.named()]
        for kind, name in names:
            if name in taken[kind]:
                rule = f"give {kind} names of their own; {taken[kind][name]} has this one"
                problems.append(Problem(file.where, name, rule))
            taken[kind][name] = file.where
    return problems


def check_rows(papers: Mapping[str, Paper]) -> list[Problem]:
    """A problem for every row of a table that no paper trains on the block's data set."""
    known = {key for paper in papers.values() for key in paper.rows}
    problems = []
    for paper in papers.values():
        for name, table in paper.tables.items():
            for place, block in enumerate(table.blocks):
                key = f"{FOLDER}/{paper.name}/params.yaml: tables.{name}.blocks[{place}].rows"
                rows = [row for row in block.rows.values() if row is not None and (row, block.dataset) not in known]
                rule = f"name rows that a paper trains on {block.dataset}"
                problems += [Problem(key, row, rule) for row in rows]
    return problems


def last(layers: Sequence[Layer], key: str) -> Any:
    """What the strongest layer that sets a key says."""
    return next((layer[key] for _, layer in reversed(layers) if layer.get(key) is not None), None)


def without(layer: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """A layer without some keys."""
    return {key: value for key, value in layer.items() if key not in keys}


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


def _wrong_sections(where: str, raw: Mapping[str, Any]) -> Iterator[Problem]:
    """Rules of the file's form; those of the settings are the configuration classes'."""
    for key in raw:
        if key not in SECTIONS:
            yield Problem(f"{where}: {key}", raw[key], f"not be there; known here: {', '.join(SECTIONS)}")
    yield from _wrong_lists(where, raw)
    found = {key: raw.get(key) or {} for key in ("profiles", "datasets", "all_rows", "rows", "experiments", "tables")}
    for key, section in found.items():
        if not isinstance(section, Mapping):
            yield Problem(f"{where}: {key}", section, "be a mapping")
            return
    for kind in ("rows", "datasets", "experiments", "tables"):
        yield from _wrong_entries(f"{where}: {kind}", found[kind])
    yield from _wrong_settings(f"{where}: all_rows", found["all_rows"])
    yield from _wrong_rows(f"{where}: rows", found["rows"])
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
    if seeds is None and names is None and not raw.get("rows"):
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
