"""The command line's commands round models and runs: parse, call one function, print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from pipelines.command_line import settings, store

PANEL = "Models and runs"
KINDS = ("fomm", "articulated")
"""Of published motion models."""
FACE_KINDS = ("stylegan2", "psp", "dualstyle")
"""Of published networks of faces."""
VERSION = typer.Argument(help="models:/NAME@ALIAS, models:/NAME/VERSION or models:/NAME.", metavar="MODEL")

models = typer.Typer()
tracking = typer.Typer(no_args_is_help=True, help="What a training recorded, and its way to MLflow.")
registry = typer.Typer(no_args_is_help=True, help="Model versions.")


@models.command("import", rich_help_panel=PANEL)
def import_model(  # noqa: PLR0913 - the command line's options
    file: Annotated[Path, typer.Argument(help="The published .pth.tar, .pth or .pt, as it was downloaded.")],
    kind: Annotated[str, typer.Option(help=f"{', '.join(KINDS)}, {', '.join(FACE_KINDS)}: whose file it is.")],
    config: Annotated[
        Path | None,
        typer.Option(help="Motion: the published config.yaml: what tensors can't tell.", metavar="YAML"),
    ] = None,
    align_corners: Annotated[
        bool, typer.Option("--align-corners", help="Motion: trained with torch 1.2 or older.")
    ] = False,
    size_px: Annotated[
        int | None, typer.Option(help="Motion: height and width of the frames; else what the settings give.")
    ] = None,
    generator: Annotated[
        Path | None, typer.Option(help="psp: the imported StyleGAN2's folder; else the one in the file.", metavar="DIR")
    ] = None,
    encoder: Annotated[Path | None, typer.Option(help="dualstyle: the published encoder.pt.", metavar="FILE")] = None,
    styles: Annotated[
        Path | None, typer.Option(help="dualstyle: refined_exstyle_code.npy, or exstyle_code.npy.", metavar="NPY")
    ] = None,
    instyle: Annotated[
        Path | None, typer.Option(help="dualstyle: instyle_code.npy, to show the styles with.", metavar="NPY")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the model; else made of kind and file name.")] = None,
) -> None:
    """Import a published file: every entry accounted for, the fitting configuration found, nothing in it run.

    A motion model (fomm, articulated) and a DualStyleGAN become model versions; every kind becomes a checkpoint in
    data/imported that a training goes on from by `init_from`, a motion model with Adam's state.

    Examples: `inkmotion import --kind fomm vox-cpk.pth.tar --config vox-256.yaml --align-corners --name vox`,
    `inkmotion import --kind stylegan2 stylegan2-ffhq-config-f.pt`,
    `inkmotion import --kind dualstyle generator.pt --encoder encoder.pt --styles refined_exstyle_code.npy`
    """
    checked = _kind(kind, (*KINDS, *FACE_KINDS))
    of_motion = {"--config": config, "--align-corners": align_corners or None, "--size-px": size_px}
    of_faces = {"--generator": generator, "--encoder": encoder, "--styles": styles, "--instyle": instyle}
    _refuse(of_faces if checked in KINDS else of_motion, checked)
    if checked in FACE_KINDS:
        from pipelines.importing_faces import Beside
        from pipelines.importing_faces import run as faces

        beside = Beside(generator=generator, encoder=encoder, styles=styles, instyle=instyle)
        lines = faces(file, checked, *store(), beside=beside, name=name).lines()  # type: ignore[arg-type]
    else:
        from pipelines.importing import read_assumptions
        from pipelines.importing import run as motion

        assumptions = read_assumptions(config, align_corners=align_corners, size_px=size_px)
        lines = motion(file, checked, *store(), assumptions=assumptions, name=name).lines()  # type: ignore[arg-type]
    for line in lines:
        typer.echo(line)


@models.command("export-upstream", rich_help_panel=PANEL)
def export_upstream(
    model: Annotated[str, typer.Argument(help="models:/NAME@ALIAS, models:/NAME/VERSION, or a checkpoint's folder.")],
    file: Annotated[Path, typer.Argument(help="What to write; its settings go to FILE.yaml.")],
    kind: Annotated[str | None, typer.Option(help="fomm or articulated: refuse anything else.")] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="The weights as trained, in place of their moving average.")
    ] = False,
) -> None:
    """Write a model in the layout that the published code reads, if it has the published options only.

    Examples: `inkmotion export-upstream models:/fomm-faces@champion fomm-faces.pth.tar`,
    `inkmotion export-upstream data/trained/fomm-faces mine.pth.tar --raw`
    """
    checked = None if kind is None else _kind(kind, KINDS)
    from pipelines.importing import export_upstream as export

    typer.echo(export(model, file, *store(), kind=checked, raw=raw))  # type: ignore[arg-type]


@models.command(rich_help_panel=PANEL)
def promote(name: Annotated[str, typer.Argument(help="A registered model's name.", metavar="NAME")]) -> None:
    """Let `champion` follow `candidate`, if its metric is better on the same data.

    Example: `inkmotion promote fomm-faces`.
    """
    from pipelines.registry import promote as decide

    typer.echo(decide(name, *settings()).sentence)


@models.command(rich_help_panel=PANEL)
def lineage(uri: Annotated[str, VERSION]) -> None:
    """What made a model version: code, data, settings, metrics.

    Example: `inkmotion lineage models:/fomm-faces@champion`.
    """
    import json

    from pipelines.registry import lineage as trace

    typer.echo(json.dumps(trace(uri, *settings()), indent=2))


@models.command(rich_help_panel=PANEL)
def compare(
    first: Annotated[str, typer.Argument(help="A run, an experiment (its newest run), NAME/VERSION or models:/...")],
    second: Annotated[str, typer.Argument(help="Likewise.")],
) -> None:
    """Show two runs or model versions side by side: settings that differ, figures.

    Examples: `inkmotion compare fomm-faces articulated-faces`, `inkmotion compare fomm-faces/1 fomm-faces/2`.
    """
    from rich.console import Console
    from rich.table import Table

    from pipelines.compare import compare as put_side_by_side

    found = put_side_by_side(first, second, *store())
    table = Table("", *found.names, box=None)
    for key, left, right in found.settings:
        table.add_row(key, left, right)
    for key, *figures in found.figures:
        table.add_row(key, *("-" if figure is None else f"{figure:.6g}" for figure in figures))
    Console().print(table)


@models.command(rich_help_panel=PANEL)
def ui(port: Annotated[int, typer.Option(min=1, max=65535, help="On loopback.")] = 5000) -> None:
    """Open MLflow's page on the project's store; Ctrl-C ends it."""
    from pipelines import ui as page

    params, paths = settings()
    typer.echo(f"MLflow: {page.address(params, paths, port=port)}")
    raise typer.Exit(page.serve(params, paths, port=port))


@tracking.command("flush")
def flush() -> None:
    """Send what could not be sent while the MLflow server was away. Run it as often as you like."""
    from pipelines.registry import store_of
    from training.tracking.mlflow import flush_all

    params, paths = store()
    place = store_of(params, paths)
    done = flush_all(paths.run(""), place.uri, timeout_s=place.timeout_s)
    typer.echo(f"{done.runs} runs: {done.sent} records sent, {done.waiting} waiting.")
    for problem in done.problems:
        typer.echo(problem, err=True)
    raise typer.Exit(1 if done.problems else 0)


@registry.command("move")
def move(to: Annotated[str, typer.Option(help="The server's address.", metavar="http://HOST:PORT")]) -> None:
    """Copy every model version to a server: files, aliases, tags, source runs, same version numbers.

    Example: `inkmotion registry move --to http://mlflow:5000`.
    """
    from pipelines.moving import move as move_all
    from pipelines.registry import Store, store_of

    params, paths = store()
    moved = move_all(store_of(params, paths), Store(uri=to))
    typer.echo(f"Moved {moved.versions} versions of {moved.models} new models, with {moved.runs} runs.")


@models.command("models", rich_help_panel=PANEL)
def list_models() -> None:
    """List the presets that an experiment can name."""
    from models.catalog import MODELS as presets
    from models.catalog import PUBLISHED

    for name, spec in presets.items():
        typer.echo(f"{name:16} {spec.family:7} {spec.summary}")
    typer.echo("\nPublished settings (profiles.<profile>.published, experiments.<name>.published):")
    for name, kinds in PUBLISHED.items():
        typer.echo(f"{name:16} {', '.join(kinds)}")


def _kind(kind: str, known: Sequence[str]) -> str:
    if kind not in known:
        listed = f"{', '.join(known[:-1])} or {known[-1]}"
        raise typer.BadParameter(f"must be {listed}; got {kind}.", param_hint="--kind")
    return kind


def _refuse(options: Mapping[str, object], kind: str) -> None:
    """Options of the other family of kinds."""
    for option, value in options.items():
        if value is not None:
            raise typer.BadParameter(f"must be left out with --kind {kind}; got {value}.", param_hint=option)
