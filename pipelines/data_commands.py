"""The command line's groups `datasets` and `weights`: parse, call one function, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.command_line import settings, store

datasets = typer.Typer(no_args_is_help=True, help="Public data sets, and data sets of your own.")
weights = typer.Typer(no_args_is_help=True, help="Pretrained files that stages need.")


@datasets.command("list")
def list_datasets() -> None:
    """List the public data sets that inkmotion knows.

    Example: `inkmotion datasets list`.
    """
    from rich.console import Console
    from rich.table import Table

    from pipelines.datasets import COLUMNS, listed

    table = Table(box=None)
    for place, title in enumerate(COLUMNS):
        table.add_column(title, no_wrap=place == 0)
    for row in listed(store()[0]):
        table.add_row(*row)
    Console().print(table)


@datasets.command("show")
def show_dataset(name: Annotated[str, typer.Argument(help="A name of `inkmotion datasets list`.")]) -> None:
    """Say everything about a public data set: sources, licence, terms, layout, cut, splits, counts.

    Example: `inkmotion datasets show voxceleb1`.
    """
    from pipelines.datasets import shown

    typer.echo(shown(name))


@datasets.command("check")
def check_dataset(
    name: Annotated[str, typer.Argument(help="A name in `datasets` of params.yaml, or of `inkmotion datasets list`.")],
    path: Annotated[Path | None, typer.Option(help="The folder to look at; else the data set's source.")] = None,
) -> None:
    """Look a folder over before anything runs: layout, names, sizes, splits, unreadable files; all at once.

    Examples: `inkmotion datasets check faces`, `inkmotion datasets check voxceleb1 --path /data/vox`
    """
    from pipelines.datasets import check

    text, is_good = check(name, *settings(), path=path)
    typer.echo(text)
    raise typer.Exit(0 if is_good else 1)


@datasets.command("add")
def add_dataset(
    name: Annotated[str, typer.Argument(help="The new data set's name.")],
    path: Annotated[Path | None, typer.Option(help="The folder with your media.")] = None,
    kind: Annotated[str | None, typer.Option(help="faces, bodies, cartoons, images or film.")] = None,
    preset: Annotated[str | None, typer.Option(help="A public data set of `inkmotion datasets list`.")] = None,
    split: Annotated[
        str | None, typer.Option(help="official, identity, source or time; else by what is in the folder.")
    ] = None,
) -> None:
    """Write a data set into params.yaml.

    Examples: `inkmotion datasets add mine --path ~/videos --kind faces`,
    `inkmotion datasets add vox --preset voxceleb1`
    """
    from pipelines.datasets import add

    _, paths = settings()
    typer.echo(add(paths.root / "params.yaml", name, path=path, kind=kind, preset=preset, split=split))


@weights.command("list")
def list_weights() -> None:
    """List the pretrained files, what needs them and whether they are there.

    Example: `inkmotion weights list`.
    """
    from rich.console import Console
    from rich.table import Table

    from pipelines.stage import Paths
    from pipelines.weights import COLUMNS, listed

    table = Table(*COLUMNS, box=None)
    for row in listed(Paths(), optional=True):
        table.add_row(*row)
    Console().print(table)


@weights.command("fetch")
def fetch_weights(name: Annotated[str, typer.Argument(help="A name of `inkmotion weights list`.")]) -> None:
    """Fetch pretrained files, checked by their sha256.

    Example: `inkmotion weights fetch blazepose`.
    """
    from pipelines.stage import Paths
    from pipelines.weights import fetch

    typer.echo(fetch(name, Paths()))


@weights.command("verify")
def verify_weights() -> None:
    """Compare the pretrained files that are here with their sha256.

    Example: `inkmotion weights verify`.
    """
    from pipelines.stage import Paths
    from pipelines.weights import verify

    problems = verify(Paths())
    for line in problems or ["All files are as they must be."]:
        typer.echo(line)
    raise typer.Exit(1 if problems else 0)


@weights.command("import")
def import_weights(
    name: Annotated[str, typer.Argument(help="A name of `inkmotion weights list`.")],
    file: Annotated[Path, typer.Argument(help="A file that you have: the pretrained file, or what it comes in.")],
) -> None:
    """Take a pretrained file that you have, checked by its sha256.

    Example: `inkmotion weights import blazepose mediapipe-0.10.14-cp311-cp311-manylinux_2_17_x86_64.whl`.
    """
    from pipelines.stage import Paths
    from pipelines.weights import import_file

    typer.echo(import_file(name, file, Paths()))
