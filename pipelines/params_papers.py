"""The papers' own params files, ``papers/<paper>/params.yaml``: sparse, read by pipelines/params.py beside its own.

A paper's file names rows; each row is trained on each of the paper's data sets with each of its seeds, as the
experiment ``<row>-on-<dataset>-seed<k>``. Its ``methods`` draw without any training, ``<method>-on-<dataset>``, and are
only evaluated. Its ``experiments`` are trainings with names of their own, and its ``dualstyles`` systems, which are too
long for the project's own graph. Their reports stay apart from the project's, in ``reports/papers``.

Precedence, weakest first, over what params.yaml says for all experiments: ``all_rows``, ``profiles.<profile>.model``
and ``.train``, ``rows.<row>``, ``profiles.<profile>.rows.<row>``; ``experiments.<name>``. Methods are described by
``all_rows`` (``style_dataset`` alone), ``profiles.<profile>.methods`` and ``methods.<method>``. A null inherits.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.catalog import MODELS
from models.errors import ParamsError, Problem
from models.families import Family
from pipelines.dualstyle_steps import names_of
from pipelines.layers import Layer, build
from pipelines.params_papers_form import is_plain as is_plain
from pipelines.params_papers_form import read_mapping, wrong_sections
from pipelines.style_methods import MethodConfig
from pipelines.table_config import TableConfig, columns_of, tables_of
from preprocessing.config import DatasetConfig

if TYPE_CHECKING:
    from pipelines.params_dualstyle import Cartoon
    from pipelines.settings import DualStyleSystem, ExperimentConfig

FOLDER = Path("papers")


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
    methods: dict[tuple[str, str], MethodConfig] = field(default_factory=dict)
    """(method, data set) -> what draws without training."""
    dualstyles: dict[str, DualStyleSystem] = field(default_factory=dict)
    """Its systems that turn faces into cartoons; their trainings are among the experiments, and named."""

    def folders(self) -> Iterator[tuple[str, str]]:
        """(name, where its reports are below reports/) of each data set, experiment and method."""
        for name in (*self.datasets, *self.named, *self.dualstyles, *(method_name(*key) for key in self.methods)):
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

    def cartoons(self) -> Iterator[tuple[str, Layer]]:
        """(name, what describes it) of each system that turns faces into cartoons."""
        for name in self.section("dualstyles"):
            yield name, (self.key("dualstyles", name), self.section("dualstyles", name))

    def drawn(self) -> Iterator[tuple[str, str]]:
        """(method, data set) of all that is drawn without training."""
        yield from itertools.product(self.section("methods"), self.trained_on)

    def method_layers(self, method: str, dataset: str, profile: str) -> list[Layer]:
        """What describes a method, weakest first."""
        places = (("profiles", profile, "methods"), ("methods", method))
        (first, common), (last, own) = ((self.key(*place), self.section(*place)) for place in places)
        style = {"style_dataset": self.section("all_rows").get("style_dataset")}  # that of the rows they stand beside
        return [(self.key("all_rows"), style), (first, common), (last, {**own, "dataset": dataset})]

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
        found = [*wrong_sections(where, raw)]
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
    cartoon: Callable[[str, Layer], Cartoon],
) -> Paper:
    """A paper's data sets, trainings and tables.

    Args:
        file: the paper's.
        profile: the one chosen.
        problems: receives what is wrong.
        dataset: makes a data set of a name and what the file says of it.
        experiment: makes an experiment of what the file says of it, and of its published settings by data set.
        cartoon: makes the trainings of a system that turns faces into cartoons, and what it is.
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
    cartoons = {name: cartoon(name, layer) for name, layer in file.cartoons()}
    for found in cartoons.values():
        named |= found.experiments
    experiments |= {name: made for name, made in named.items() if made is not None}
    methods = {key: _method(file, *key, profile, problems) for key in file.drawn()}
    return Paper(
        name=file.name,
        seeds=file.seeds,
        datasets={name: config for name, config in datasets.items() if config is not None},
        experiments=experiments,
        rows={(row, data): names for row, data, names in file.trainings()},
        tables=tables_of(file, problems),
        named=tuple(named),
        methods={key: method for key, method in methods.items() if method is not None},
        dualstyles={name: found.system for name, found in cartoons.items() if found.system is not None},
    )


def method_name(method: str, dataset: str) -> str:
    """What a method on a data set is called, where trainings have their names."""
    return f"{method}-on-{dataset}"


def methods_of(papers: Mapping[str, Paper]) -> dict[str, MethodConfig]:
    """All papers' methods by name."""
    return {method_name(*key): made for paper in papers.values() for key, made in paper.methods.items()}


def method_named(papers: Mapping[str, Paper], name: str) -> MethodConfig:
    """A paper's method.

    Raises:
        ParamsError: there is none of that name.
    """
    known = methods_of(papers)
    if name not in known:
        raise ParamsError([Problem("methods", name, f"hold the name asked for; known: {', '.join(known) or 'none'}")])
    return known[name]


def _method(file: PaperFile, method: str, dataset: str, profile: str, problems: list[Problem]) -> MethodConfig | None:
    """A method out of what describes it."""
    layers = file.method_layers(method, dataset, profile)
    return build(MethodConfig, layers, file.key("methods", method), problems)


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
        names += [("experiments", training) for name, _ in file.cartoons() for training in names_of(name)]
        names += [("experiments", method_name(*key)) for key in file.drawn()]
        for kind, name in names:
            if name in taken[kind]:
                rule = f"give {kind} names of their own; {taken[kind][name]} has this one"
                problems.append(Problem(file.where, name, rule))
            taken[kind][name] = file.where
        problems += _wrong_methods(file, [*taken["datasets"]])
    return problems


def _wrong_methods(file: PaperFile, datasets: Sequence[str]) -> Iterator[Problem]:
    """Of what methods and the rest of the files must agree on."""
    for method, entry in file.section("methods").items():
        if method in file.section("rows"):
            yield Problem(file.key("methods"), method, "have names that no row has")
        style = entry.get("style_dataset", file.section("all_rows").get("style_dataset"))
        if style is not None and style not in datasets:
            yield Problem(file.key("methods", method, "style_dataset"), style, f"be one of {', '.join(datasets)}")
    for dataset in file.trained_on if file.section("methods") else ():
        if dataset not in datasets:
            yield Problem(file.key("trained_on"), dataset, f"hold only {', '.join(datasets)}")


def check_rows(papers: Mapping[str, Paper]) -> list[Problem]:
    """A problem for every row that no paper has on the block's data set, and every column that its family has not."""
    known = {key: _family(paper, key) for paper in papers.values() for key in (*paper.rows, *paper.methods)}
    problems = []
    for paper in papers.values():
        for name, table in paper.tables.items():
            for place, block in enumerate(table.blocks):
                key = f"{FOLDER}/{paper.name}/params.yaml: tables.{name}.blocks[{place}].rows"
                rows = [row for row in block.rows.values() if row is not None and (row, block.dataset) not in known]
                rule = f"name rows that a paper trains on {block.dataset}"
                problems += [Problem(key, row, rule) for row in rows]
                families = {known[row, block.dataset] for row in block.rows.values() if (row, block.dataset) in known}
                problems += _wrong_columns(key, families - {None}, block.metrics or table.metrics)
    return problems


def _family(paper: Paper, key: tuple[str, str]) -> Family | None:
    """Of a row or method; None: it can't be read."""
    if key in paper.methods:
        return "style"
    first = next((paper.experiments[name] for name in paper.rows[key] if name in paper.experiments), None)
    return None if first is None else MODELS[first.preset].family


def _wrong_columns(where: str, families: set[Family | None], metrics: Sequence[str]) -> Iterator[Problem]:
    if len(families) > 1:
        yield Problem(where, ", ".join(sorted(map(str, families))), "be of one family")
    for family in families:
        wrong = [metric for metric in metrics if metric not in columns_of(family)]
        for metric in wrong:
            yield Problem(where, metric, f"fit the block's columns: rows of the {family} family have no such figure")
