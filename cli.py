"""The command line: parse, call one function of pipelines, print. Heavy imports are made inside the commands."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any

try:
    import typer
except ModuleNotFoundError:  # a Python other than the project's
    sys.exit(
        f"inkmotion must run in its own environment; got {sys.executable}. Use `make env` and .venv/bin/inkmotion."
    )

from pipelines import data_commands, model_commands
from pipelines.command_line import Commands, settings, show, store

# torch's threads wait asleep: spinning starves whatever else runs
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # this program phones nobody
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("DVC_NO_ANALYTICS", "1")


app = typer.Typer(
    name="inkmotion",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Train and use image-animation GANs: from raw media to a registered model that runs anywhere.",
    epilog="Start with `inkmotion run` (all of it on the sample media) or `inkmotion doctor`.",
)
app.add_typer(data_commands.datasets, name="datasets", rich_help_panel="Data")
app.add_typer(data_commands.weights, name="weights", rich_help_panel="This machine")
app.add_typer(model_commands.models)
app.add_typer(model_commands.tracking, name="tracking", rich_help_panel=model_commands.PANEL)
app.add_typer(model_commands.registry, name="registry", rich_help_panel=model_commands.PANEL)

DATASET = typer.Argument(help="A name in `datasets` of params.yaml.", metavar="DATASET")
EXPERIMENT = typer.Argument(help="A name in `experiments` of params.yaml.", metavar="EXPERIMENT")
STAGES, DATA, MACHINE = "Stages", "Data", "This machine"


@app.callback()
def common(
    debug: Annotated[bool, typer.Option("--debug", help="Show the whole trace of an error.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more while working.")] = False,
) -> None:
    """Set up logging; the options come before the command."""
    del debug  # read by Commands.invoke
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    for package in ("models", "training", "preprocessing", "pipelines"):
        logging.getLogger(package).setLevel(logging.DEBUG if verbose else logging.INFO)


@app.command(rich_help_panel=STAGES)
def run(
    targets: Annotated[list[str] | None, typer.Argument(help="DVC stages, as train@fomm-faces; none: all.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Estimate time, memory and disk; run nothing.")] = False,
) -> None:
    """Run the whole graph (`dvc repro`) with one Ray head that all stages join.

    Examples: `inkmotion run`, `inkmotion run evaluate@fomm-faces`, `inkmotion run --dry-run`
    """
    if dry_run:
        if targets:
            raise typer.BadParameter("estimates the whole project; leave the stages out.", param_hint="--dry-run")
        from pipelines.estimate import describe
        from pipelines.estimate import run as estimate

        params, paths = settings()
        typer.echo(describe(estimate(params, paths)))
        return
    from pipelines.everything import run as run_everything
    from pipelines.everything import summary

    _, paths = settings()
    outcome = run_everything(paths, targets=tuple(targets or ()))
    for line in summary(outcome):
        typer.echo(line)
    raise typer.Exit(1 if outcome.exit_code else 0)


@app.command(rich_help_panel=STAGES)
def download(
    name: Annotated[str, DATASET],
    accept_terms: Annotated[bool, typer.Option("--accept-terms", help="I accept the data set's terms.")] = False,
    mirror: Annotated[str | None, typer.Option(help="An address that stands in for the data set's own.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Take only the first so many items.")] = None,
    retry: Annotated[
        list[str] | None, typer.Option(help="Try items again that were rejected for this reason, or `all`.")
    ] = None,
) -> None:
    """Take a data set's media in: fetched, checked, one ledger row for each; a stopped one goes on.

    Examples: `inkmotion download faces`, `inkmotion download voxceleb1 --accept-terms --limit 20`
    """
    from pipelines.download import run as stage

    params, paths = settings()
    changes = {"accept_terms": accept_terms or None, "mirror": mirror, "max_items": limit}
    show(stage(name, params.with_dataset(name, changes), paths, retry=retry or ()))


@app.command(rich_help_panel=DATA)
def ledger(
    name: Annotated[str, DATASET],
    reason: Annotated[str | None, typer.Option(help="List the items rejected for this reason, or `all`.")] = None,
    retry: Annotated[list[str] | None, typer.Option(help="Try the items rejected for this reason again.")] = None,
) -> None:
    """Say what became of a data set's items: counts by state and reason.

    Examples: `inkmotion ledger faces`, `inkmotion ledger voxceleb1 --reason removed`,
    `inkmotion ledger voxceleb1 --retry network`
    """
    from rich.console import Console
    from rich.table import Table

    from pipelines import ledger as book

    params, paths = settings()
    if retry:
        for outcome in book.retry(name, params, paths, retry):
            show(outcome)
    found = book.ledgers(name, params, paths)
    if reason is not None:
        for stage, row in book.selected(found, reason):
            typer.echo(f"{stage}\t{row.item}\t{row.reason}\t{row.detail}")
        return
    for entry in found:
        title = f"{entry.stage}: {len(entry.rows)} items" + ("" if entry.is_finished else " (unfinished)")
        table = Table("state", "reason", "items", "for example", title=title, box=None, title_justify="left")
        for state, why, number, detail in entry.counts():
            table.add_row(state, why, str(number), detail)
        Console().print(table)


@app.command(rich_help_panel=STAGES)
def cut(name: Annotated[str, DATASET]) -> None:
    """Cut a data set's media into clips (a film into stills), split them.

    Example: `inkmotion cut faces`.
    """
    from pipelines.crop import run as stage

    show(stage(name, *settings()))


@app.command(rich_help_panel=STAGES)
def shard(name: Annotated[str, DATASET]) -> None:
    """Decode clips into Parquet shards for training.

    Example: `inkmotion shard faces`.
    """
    from pipelines.shard import run as stage

    show(stage(name, *settings()))


@app.command(rich_help_panel=STAGES)
def train(
    name: Annotated[str, EXPERIMENT],
    resume: Annotated[str | None, typer.Option(help="Go on with this run (a folder's name in runs/).")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start anew although an unfinished run is there.")] = False,
    init_from: Annotated[
        str | None, typer.Option(help="Fine-tune this model version or checkpoint, with its networks.", metavar="MODEL")
    ] = None,
    backend: Annotated[
        str,
        typer.Option(help="ray; local: plain torch in this process (or under torchrun); auto: local for one worker."),
    ] = "ray",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the resolved settings and an estimate only.")
    ] = False,
) -> None:
    """Train an experiment; a run that was stopped or killed goes on by itself.

    Examples: `inkmotion train fomm-faces`, `inkmotion train fomm-faces --backend local`,
    `inkmotion train fomm-faces --init-from models:/vox@candidate`
    """
    if backend not in ("ray", "local", "auto"):
        raise typer.BadParameter(f"must be ray, local or auto; got {backend}.", param_hint="--backend")
    if fresh and resume is not None:
        raise typer.BadParameter("removes the run that --resume names: give one.", param_hint="--fresh")
    if dry_run and init_from is not None:
        raise typer.BadParameter(
            "estimates an experiment's own networks; leave --init-from out.", param_hint="--dry-run"
        )
    params, paths = settings()
    if dry_run:
        import json

        from pipelines.estimate import describe
        from pipelines.estimate import run as estimate
        from pipelines.stage import as_json

        typer.echo(json.dumps(as_json(params.experiment(name)), indent=2))
        typer.echo(describe(estimate(params, paths, only=name)))
        return
    from pipelines.train import run as stage

    options = {"resume": resume, "fresh": fresh, "init_from": init_from}
    show(stage(name, params, paths, backend=backend, **options))  # type: ignore[arg-type]


@app.command(rich_help_panel=STAGES)
def destylise(name: Annotated[str, typer.Argument(help="A name in dualstyles of params.yaml.")]) -> None:
    """Find the style codes of a system's style pictures, and the faces behind them; a killed one goes on.

    Example: `inkmotion destylise cartoon`.
    """
    from pipelines.destylise import run as stage

    show(stage(name, *settings()))


@app.command(rich_help_panel=STAGES)
def refine(name: Annotated[str, typer.Argument(help="A name in dualstyles of params.yaml.")]) -> None:
    """Fit the style codes of a system's style pictures to its trained DualStyleGAN; a killed one goes on.

    Example: `inkmotion refine dualstyle-cartoon`.
    """
    from pipelines.refine import run as stage

    show(stage(name, *settings()))


@app.command(rich_help_panel=STAGES)
def stylise_clips(name: Annotated[str, typer.Argument(help="A name in stylised_datasets of params.yaml.")]) -> None:
    """Make shards of motion clips and of their cartoons, to train a motion model on both; a killed one goes on.

    Example: `inkmotion stylise-clips faces-and-cartoons`.
    """
    from pipelines.stylise_clips import run as stage

    show(stage(name, *settings()))


@app.command(rich_help_panel=STAGES)
def evaluate(name: Annotated[str, EXPERIMENT]) -> None:
    """Judge a trained model on the test split: reconstructions beside copy-source, drawings beside untouched photos.

    Examples: `inkmotion evaluate fomm-faces`, `inkmotion evaluate ink`.
    """
    from pipelines.judging import run as stage

    show(stage(name, *settings()))


@app.command(rich_help_panel=STAGES)
def register(name: Annotated[str, EXPERIMENT]) -> None:
    """Export to ONNX and register a model version as `candidate`.

    Example: `inkmotion register fomm-faces`.
    """
    from pipelines.register import run as stage

    show(stage(name, *settings()))


@app.command(rich_help_panel=STAGES)
def table(
    name: Annotated[str, typer.Argument(help="A folder of papers/, as presets.", metavar="PAPER")],
) -> None:
    """Write a paper's tables: measured figures of all rows, over their seeds, beside the published ones.

    Example: `inkmotion table presets`, after `inkmotion run papers/presets/dvc.yaml` has trained the rows.
    """
    from pipelines.tables import run as stage

    show(stage(name, *settings()))


@app.command(rich_help_panel=STAGES)
def report() -> None:
    """Make reports/index.html: one self-contained page of everything that ran."""
    from pipelines.report import run as stage

    params, paths = settings()
    typer.echo(stage(params, paths))


@app.command("stylise-animate", rich_help_panel=STAGES)
def stylise_animate(
    photo: Annotated[Path, typer.Option(help="A photo with a face.")],
    driving: Annotated[Path, typer.Option(help="The video of a face that moves it.")],
    style: Annotated[str, typer.Option(help="A style of the stylist; none: its first.")] = "",
    stylist: Annotated[
        str, typer.Option(help="A version of a model that stylises.", metavar="models:/NAME@ALIAS")
    ] = "models:/dualstyle-cartoon@champion",
    mover: Annotated[
        str, typer.Option(help="A version of a model that moves pictures.", metavar="models:/NAME@ALIAS")
    ] = "models:/fomm-faces@champion",
    out: Annotated[Path, typer.Option(help="What to write: .gif or .mp4 (keeps the driving video's sound).")] = Path(
        "animation.gif"
    ),
    face: Annotated[str, typer.Option(help="Of several: largest, all, or a number from the left.")] = "",
    box: Annotated[str, typer.Option(help="In place of --face: left,top,right,bottom of the head, in pixels.")] = "",
    structure: Annotated[float, typer.Option(min=0, max=1, help="How much of the style's structure.")] = 0.75,
    colour: Annotated[float, typer.Option(min=0, max=1, help="How much of the style's colours.")] = 1.0,
    shown: Annotated[
        str, typer.Option(help="What moves: style, structure (in the face's colours), structure-off, reconstruction.")
    ] = "style",
    paste_back: Annotated[bool, typer.Option("--paste-back", help="Show the whole photo, its faces moved.")] = False,
    emoji: Annotated[bool, typer.Option("--emoji", help="A small .gif with one palette.")] = False,
    pictures: Annotated[Path | None, typer.Option(help="Keep the face and all pictures of it in this folder.")] = None,
    max_frames: Annotated[int | None, typer.Option(min=1, help="Stop after so many frames.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Stylise the face in a photo, and move it with a video.

    Examples: `inkmotion stylise-animate --photo me.jpg --driving smile.mp4 --style micah-3 --out me.gif`,
    `inkmotion stylise-animate --photo us.jpg --face all --paste-back --driving smile.mp4 --out us.mp4`,
    `inkmotion stylise-animate --photo me.jpg --driving smile.mp4 --stylist models:/ink@champion --emoji --out me.gif`
    """
    from pipelines import stylise_animate as stage
    from pipelines.animate import AnimateOptions, open_engine
    from pipelines.palette_gif import Emoji
    from pipelines.photo_faces import parse_box, parse_choice
    from pipelines.stylist import open_stylist

    if device not in ("auto", "cpu", "cuda"):
        raise typer.BadParameter(f"must be auto, cpu or cuda; got {device}.", param_hint="--device")
    options = stage.StyliseAnimateOptions(
        face=parse_choice(face) if face else None,
        box=parse_box(box) if box else None,
        structure=structure,
        colour=colour,
        shown=shown,  # type: ignore[arg-type]
        paste_back=paste_back,
        motion=AnimateOptions(max_frames=max_frames),
        emoji=Emoji() if emoji else None,
        pictures=pictures,
    )
    params, paths = store()
    styles = open_stylist(params, paths, model=stylist, checkpoint=None, device=device)  # type: ignore[arg-type]
    engine = open_engine(params, paths, model=mover, checkpoint=None, device=device)  # type: ignore[arg-type]
    chosen = style or styles.styles[0]
    show(stage.run(photo, chosen, driving, out, stylist=styles, mover=engine, options=options))


@app.command(rich_help_panel=STAGES)
def animate(
    model: Annotated[str | None, typer.Option(help="A model version.", metavar="models:/NAME@ALIAS")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="In place of --model: a checkpoint's folder.")] = None,
    source: Annotated[
        list[Path] | None,
        typer.Option(help="The picture (or a video, whose first frame is taken); give it again for more."),
    ] = None,
    driving: Annotated[Path | None, typer.Option(help="The video that moves it.")] = None,
    out: Annotated[Path, typer.Option(help="What to write: .gif or .mp4 (keeps the driving video's sound).")] = Path(
        "animation.gif"
    ),
    mode: Annotated[
        str, typer.Option(help="relative: its movement; absolute: its keypoints; avd: its pose, the source's shape.")
    ] = "relative",
    adapt_scale: Annotated[bool, typer.Option("--adapt-scale", help="Fit movement to the source's size.")] = False,
    find_best_frame: Annotated[
        bool, typer.Option("--best-frame/--first-frame", help="Reference: the nearest pose, or the first frame.")
    ] = True,
    smooth: Annotated[float, typer.Option(min=0, max=100, help="Smooth the movement over so many frames.")] = 0.0,
    crop: Annotated[bool, typer.Option("--crop/--no-crop", help="Cut out the face, or take the middle.")] = True,
    side_by_side: Annotated[bool, typer.Option("--side-by-side", help="Show source and driving frame too.")] = False,
    max_frames: Annotated[int | None, typer.Option(min=1, help="Stop after so many frames.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    stage: Annotated[str | None, typer.Option(help="Make this animation of params.yaml instead.")] = None,
) -> None:
    """Move a picture with a video.

    Examples: `inkmotion animate --model models:/fomm-faces@champion --source me.jpg --driving dance.mp4 --out me.gif`,
    `inkmotion animate --checkpoint data/trained/fomm-faces --source a.png --driving b.mp4 --out c.mp4 --mode absolute`.
    With several sources, `--out me.gif` names the files `me-SOURCE.gif`.
    """
    from pipelines import animate as animating

    if stage is not None:
        if model or checkpoint or source or driving:
            raise typer.BadParameter("takes everything from params.yaml; leave the others out.", param_hint="--stage")
        return show(animating.run(stage, *settings()))
    if device not in ("auto", "cpu", "cuda"):
        raise typer.BadParameter(f"must be auto, cpu or cuda; got {device}.", param_hint="--device")
    if adapt_scale and mode != "relative":
        raise typer.BadParameter(f"fits relative movement only; got --mode {mode}.", param_hint="--adapt-scale")
    if mode not in ("relative", "absolute", "avd"):
        raise typer.BadParameter(f"must be relative, absolute or avd; got {mode}.", param_hint="--mode")
    if not source or driving is None:
        raise typer.BadParameter("--source and --driving must be given (and --model or --checkpoint).")
    options = animating.AnimateOptions(
        mode=mode,  # type: ignore[arg-type]
        adapt_scale=adapt_scale,
        find_best_frame=find_best_frame,
        smoothing=smooth,
        crop=crop,
        max_frames=max_frames,
        side_by_side=side_by_side,
    )
    animating.check_outputs(animating.named(out, source), inputs=(*source, driving))
    params, paths = store()
    name, engine = animating.open_engine(params, paths, model=model, checkpoint=checkpoint, device=device)  # type: ignore[arg-type]
    for made in animating.animate(engine, source, driving, out, options=options, model=name):
        show(made)


@app.command(rich_help_panel=STAGES)
def stylise(
    model: Annotated[str | None, typer.Option(help="A model version.", metavar="models:/NAME@ALIAS")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="In place of --model: a checkpoint's folder.")] = None,
    source: Annotated[
        Path | None, typer.Option("--in", help="A photo, a video or GIF, or a folder: every picture below it.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="A photo's .png, .jpg or .webp; a video's .mp4 (keeps its sound), .gif or .webp; a folder's folder."
        ),
    ] = None,
    strength: Annotated[float, typer.Option(min=0, max=1, help="0: the photo; 1: the drawing; between: both.")] = 1.0,
    temporal: Annotated[
        bool, typer.Option("--temporal/--no-temporal", help="Keep a video's drawings steady; takes longer.")
    ] = False,
    max_frames: Annotated[int | None, typer.Option(min=1, help="Stop after so many frames of a video.")] = None,
    tile: Annotated[
        int | None, typer.Option(min=192, help="Draw in tiles of so many pixels a side, for less memory.")
    ] = None,
    max_pixels: Annotated[int, typer.Option(min=1, help="Refuse photos of more pixels than this.")] = 40_000_000,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    num_workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that share a folder; 1: this one alone; else as many as pay.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Draw a folder's photos again that are done.")] = False,
    variant: Annotated[str, typer.Option(help="Of the model version: fp16 or int8, smaller files.")] = "",
    stage: Annotated[str | None, typer.Option(help="Make this stylisation of params.yaml instead.")] = None,
) -> None:
    """Make drawings of a photo, a folder of photos or a video.

    Examples: `inkmotion stylise --model models:/ink@champion --in me.jpg --out me.png`,
    `inkmotion stylise --model models:/ink@champion --in holiday.mp4 --out drawn.mp4 --temporal`,
    `inkmotion stylise --checkpoint data/trained/ink --in photos --out drawings` (run again, it goes on).
    """
    from pipelines import stylise as stylising

    if stage is not None:
        if model or checkpoint or source or out:
            raise typer.BadParameter("takes everything from params.yaml; leave the others out.", param_hint="--stage")
        return show(stylising.run(stage, *settings()))
    if device not in ("auto", "cpu", "cuda"):
        raise typer.BadParameter(f"must be auto, cpu or cuda; got {device}.", param_hint="--device")
    if variant not in ("", "fp16", "int8"):
        raise typer.BadParameter(f"must be fp16 or int8; got {variant}.", param_hint="--variant")
    if source is None or out is None:
        raise typer.BadParameter("--in and --out must be given (and --model or --checkpoint).")
    options = stylising.StyliseOptions(
        strength=strength,
        temporal=temporal,
        max_frames=max_frames,
        tile_px=tile,
        max_pixels=max_pixels,
        num_workers=num_workers,
        overwrite=overwrite,
    )
    stylising.plan(source, out, max_pixels=max_pixels)
    params, paths = store()
    choice: Any = {"model": model, "checkpoint": checkpoint, "device": device, "variant": variant}
    chosen = stylising.open_model(params, paths, **choice)
    made = stylising.stylise(chosen, source, out, options=options, cluster=params.cluster if params else None)
    show(made)
    raise typer.Exit(1 if getattr(made, "num_failed", 0) else 0)


@app.command(rich_help_panel=MACHINE)
def studio(
    host: Annotated[str, typer.Option(help="Where to listen; 0.0.0.0 lets the whole network in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 7860,
    max_upload_mb: Annotated[int, typer.Option(min=1, help="Refuse larger photos and videos.")] = 64,
    max_seconds: Annotated[float, typer.Option(min=1, help="Refuse longer driving videos.")] = 20.0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Open a page in the browser: a photo or the camera, a style, a video, and the animated result.

    Examples: `inkmotion studio`, `inkmotion studio --port 8000`, `inkmotion studio --host 0.0.0.0 --max-seconds 10`
    """
    from pipelines import studio as page

    if device not in ("auto", "cpu", "cuda"):
        raise typer.BadParameter(f"must be auto, cpu or cuda; got {device}.", param_hint="--device")
    params, paths = store()
    options = page.StudioOptions(
        host=host,
        port=port,
        max_upload_mb=max_upload_mb,
        max_seconds=max_seconds,
        device=device,  # type: ignore[arg-type]
    )
    page.serve(paths, params, options)


@app.command(rich_help_panel=MACHINE)
def doctor() -> None:
    """Say what this machine has, what is missing for which stage, and the command that mends it."""
    from rich.console import Console
    from rich.table import Table

    from pipelines.doctor import run as look
    from pipelines.stage import Paths

    table = Table("", "what", "found", "concerns", "mend with", box=None)
    marks = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "missing": "[red]missing[/]"}
    findings = look(Paths())
    for row in findings:
        concerns = "" if row.state == "ok" else row.stages
        table.add_row(marks[row.state], row.what, row.detail, concerns, row.mend)
    Console().print(table)
    raise typer.Exit(1 if any(row.state == "missing" for row in findings) else 0)


@app.command(rich_help_panel=MACHINE)
def clean(
    runs: Annotated[bool, typer.Option("--runs", help="Also checkpoints of trainings.")] = False,
    cache: Annotated[bool, typer.Option("--cache", help="Also DVC's cache.")] = False,
    store: Annotated[
        bool, typer.Option("--store", help="Also the local MLflow store with its registered models.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove what the pipeline can make again.

    Examples: `inkmotion clean`, `inkmotion clean --runs --cache -y`.
    """
    from pipelines import clean as cleaning
    from pipelines.stage import Paths

    wanted = [("outputs", True), ("runs", runs), ("cache", cache), ("store", store)]
    places = cleaning.find(Paths(), tuple(what for what, on in wanted if on))  # type: ignore[misc]
    if not places:
        typer.echo("Nothing to remove.")
        return
    for place in places:
        typer.echo(f"{place.num_bytes / 1e6:10.1f} MB  {place.path}: {place.means}")
    if yes or typer.confirm("Remove these?"):
        cleaning.remove(places)
        typer.echo(f"Removed {sum(place.num_bytes for place in places) / 1e6:.1f} MB.")


def main() -> None:
    """Entry point of the console script."""
    app()


if __name__ == "__main__":
    main()
