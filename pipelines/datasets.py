"""The `datasets` commands: what public data sets there are, a look at a folder, a new data set in params.yaml."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

from models.errors import ParamsError, Problem
from pipelines.dataset_entry import add
from pipelines.params import Params
from pipelines.sources import local_folder, spec_of
from pipelines.stage import Paths
from preprocessing.config import DatasetConfig
from preprocessing.datasets.catalog import DATASETS, dataset_spec
from preprocessing.datasets.spec import Count, DatasetSpec, Remote
from preprocessing.preflight import Preflight, Spread, check_folder

__all__ = ["COLUMNS", "add", "check", "listed", "shown"]

COLUMNS = ("name", "kind", "expected", "size", "licence", "how", "used by")
"""Of `listed`."""
_WIDTH = 100
_NOT_OF_THE_CUT = ("kind", "preset", "source", "mirror", "video_url", "accept_terms", "max_items", "only")


def listed(params: Params | None) -> list[tuple[str, ...]]:
    """The public data sets, a row of `COLUMNS` each.

    Args:
        params: whose data sets are named where they use a public one; None: outside of a project.
    """
    used: dict[str | None, list[str]] = {}
    for name, config in (params.datasets if params else {}).items():
        used.setdefault(config.preset, []).append(name)
    return [
        (
            spec.name,
            spec.kind,
            _numbers(spec.expected) or "-",
            f"{spec.num_gb:g} GB" if spec.num_gb else "not published",
            textwrap.shorten(spec.licence.name, 40, placeholder=" ..."),
            how(spec),
            ", ".join(used.get(spec.name, [])) or "-",
        )
        for spec in DATASETS.values()
    ]


def how(spec: DatasetSpec) -> str:
    """How a data set is had, in a few words."""
    if spec.video_url:
        return "videos by id"
    if spec.remotes:
        return "fetched"
    return "by form" if spec.form else "files of your own"


def shown(name: str) -> str:
    """Everything about a public data set, as plain text.

    Raises:
        ParamsError: no public data set of that name; with the names there are.
    """
    spec = dataset_spec(name)
    parts = [
        ("", [f"{spec.title} ({spec.name})", f"kind {spec.kind}; {how(spec)}; {spec.homepage}"]),
        ("Used by", spec.papers),
        ("Licence", _licence(spec)),
        ("Terms (accepted by --accept-terms, or accept_terms: true)", spec.terms.strip().splitlines()),
        ("Sources", _sources(spec)),
        ("How to get it", _wrapped(spec.how_to_get)),
        ("Layout of a local copy", spec.layout.strip("\n").splitlines()),
        ("How it is cut and split", _settings(spec)),
        ("Notes", [line for note in spec.notes for line in _wrapped(note, bullet="- ")]),
        ("Counts", _counts(spec)),
        ("Commands", _commands(spec)),
    ]
    blocks = [
        "\n".join([title, *(f"  {line}".rstrip() for line in lines)]) for title, lines in parts if title and lines
    ]
    return "\n\n".join(["\n".join(parts[0][1]), *blocks])


def _wrapped(text: str, *, bullet: str = "") -> list[str]:
    lines: list[str] = []
    for paragraph in text.strip().split("\n\n"):
        further = " " * len(bullet)
        lines += textwrap.wrap(
            paragraph, _WIDTH, initial_indent=bullet, subsequent_indent=further, break_on_hyphens=False
        )
    return lines


def _licence(spec: DatasetSpec) -> list[str]:
    return [f"{spec.licence.name} ({spec.licence.url})", *_wrapped(spec.licence.allows)]


def _sources(spec: DatasetSpec) -> list[str]:
    lines = [line for remote in spec.remotes for line in _remote(remote)]
    if spec.video_url:
        lines.append(f"videos, each by its id: {spec.video_url}")
    if spec.form:
        lines += [f"form: {spec.form.url}", *(f"  {line}" for line in _wrapped(spec.form.what))]
    return lines or ["none: put files of your own into a folder"]


def _remote(remote: Remote) -> list[str]:
    facts = [f"{remote.num_bytes:,} bytes" if remote.num_bytes else "size unknown"]
    facts += [f"{kind} {value}" for kind, value in (("md5", remote.md5), ("sha256", remote.sha256)) if value]
    what = "archive, unpacked" if remote.is_archive else "file"
    lines = [f"{remote.name} ({what}; {', '.join(facts)})", *(f"  {url}" for url in remote.urls)]
    return lines + [f"  {line}" for line in _wrapped(f"status: {remote.status or 'not known'}")]


def _settings(spec: DatasetSpec) -> list[str]:
    """Every setting of the cut and the split, as this data set has it when params.yaml says nothing else."""
    config = DatasetConfig(kind=spec.kind, preset=spec.name, **dict(spec.settings))
    values = {field.name: getattr(config, field.name) for field in fields(config) if field.name not in _NOT_OF_THE_CUT}
    values["cut"] = config.cut_rule
    own = [f"{key}: {_yaml(value)}" for key, value in values.items() if key in spec.settings or key == "cut"]
    others = ", ".join(f"{key} {_yaml(value)}" for key, value in values.items() if key not in (*spec.settings, "cut"))
    floor = f"The stages fail below a yield of {config.yield_floor:.0%}."
    return [*own, "", *_wrapped(f"As everywhere: {others}."), "", floor]


def _yaml(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return f"[{', '.join(map(str, value))}]" if isinstance(value, tuple) else str(value)


def _counts(spec: DatasetSpec) -> list[str]:
    rows = [(_numbers(count), count.who, "expected" if count.is_expected else "") for count in spec.counts]
    width = max((len(row[0]) for row in rows), default=0)
    return [f"{numbers:{width}}  {who}{f'  <- {mark}' if mark else ''}" for numbers, who, mark in rows]


def _numbers(count: Count | None) -> str:
    if count is None:
        return ""
    parts = (f"{number:,}" if side == "all" else f"{number:,} {side}" for side, number in count.of.items())
    return f"{' + '.join(parts)} {count.unit}"


def _commands(spec: DatasetSpec) -> list[str]:
    short = spec.name.split("-")[0]
    path = f" --path /data/{spec.name}"
    fetched = bool(spec.remotes)
    return [
        f"inkmotion datasets check {spec.name}{path}",
        f"inkmotion datasets add {short} --preset {spec.name}{'' if fetched else path}",
        f"inkmotion download {short}{' --accept-terms' if fetched else ''}",
        f"inkmotion ledger {short}",
        f"inkmotion cut {short}",
        f"inkmotion shard {short}",
    ]


def check(name: str, params: Params, paths: Paths, *, path: Path | None = None) -> tuple[str, bool]:
    """Look a data set's folder over before anything runs.

    Args:
        name: of a data set in params.yaml, or of a public one.
        params: the project's.
        paths: of the project; relative sources lie below its root.
        path: the folder; None: the data set's source.

    Returns:
        The findings as text, and whether no stage will fail.

    Raises:
        ParamsError: no data set of that name, or its media are not on this machine.
    """
    config, spec = _known(name, params)
    folder = path.expanduser() if path is not None else local_folder(paths.root, config)
    if folder is None:
        rule = "be a folder on this machine, or be given by --path"
        raise ParamsError([Problem(f"datasets.{name}.source", config.source, rule)])
    return told(check_folder(name, folder, config, spec, work=paths.root, progress=_progress()))


def _progress() -> Any:
    """Tells on a terminal how many files have been looked at."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        return None
    return lambda done, total: console.print(f"{done} of {total} files", end="\r" if done < total else "\n")


def _known(name: str, params: Params) -> tuple[DatasetConfig, DatasetSpec | None]:
    if name in params.datasets:
        return params.datasets[name], spec_of(params.datasets[name])
    if name in DATASETS:
        spec = DATASETS[name]
        return DatasetConfig(kind=spec.kind, preset=name, **dict(spec.settings)), spec
    known = ", ".join([*params.datasets, *DATASETS])
    raise ParamsError([Problem("datasets", name, f"hold the name asked for; known: {known}")])


def told(found: Preflight) -> tuple[str, bool]:
    """A look's outcome as text, and whether it was good."""
    lines = [f"{found.name}: {found.folder}"]
    lines.append(f"{found.num_usable} of {found.num_items} items can be used, {found.num_bytes / 1e6:,.1f} MB in all")
    lines += _figures(found)
    numbers = {"error": 0, "warning": 0, "note": 0}
    for finding in found.findings:
        numbers[finding.level] += 1
        where = "" if finding.where in finding.message else f"{finding.where}: "
        lines.append(f"{finding.level:8}{where}{finding.message}")
    words = ", ".join(f"{number} {level}{'' if number == 1 else 's'}" for level, number in numbers.items())
    lines.append(f"{'Good to go' if found.is_good else 'Stages will fail'}: {words}.")
    return "\n".join(lines), found.is_good


def _figures(found: Preflight) -> Iterable[str]:
    if found.rejected:
        yield "left out: " + ", ".join(f"{number} {reason}" for reason, number in found.rejected.items())
    if set(found.num_of_split) - {"open"}:
        yield "official sides: " + ", ".join(f"{number:,} {side}" for side, number in found.num_of_split.items())
    for what, spread in (("frames", found.frames), ("seconds", found.seconds)):
        if spread is not None:
            yield f"{what} of a video: {_spread(spread)}"


def _spread(spread: Spread) -> str:
    return f"{spread.min:.4g} to {spread.max:.4g}, median {spread.median:.4g}"
