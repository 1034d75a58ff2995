"""Judges a stylising model: are its drawings of the test photos nearer to the style than the photos, and still they?"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from models.contracts import INDEX_NAME, Split
from models.errors import ClipError, must
from pipelines import evaluate_style_plots as plots
from pipelines import strips, style_features
from pipelines.engines import Device
from pipelines.evaluate_style_figures import (
    CONTENT,
    DETAIL,
    METRIC,
    Figure,
    Verdict,
    absent_figures,
    figure,
    judge_model,
    set_figures,
)
from pipelines.evaluate_style_report import Failure, StyleEvaluateReport, table, tell
from pipelines.evaluate_style_work import (
    Examined,
    Job,
    OpenEngine,
    Place,
    Sets,
    Task,
    open_trained,
    photo_tasks,
    places_of,
)
from pipelines.evaluate_style_workers import examine_all
from pipelines.evaluate_work import torch_threads
from pipelines.image_cost import ImageCost, image_cost
from pipelines.params import EvaluationConfig, Params
from pipelines.progress import bar
from pipelines.score import Network
from pipelines.stage import Paths, fresh_folder, only_writer, write_report, write_text
from pipelines.style_features import EFFNET, Seen, stacked
from pipelines.weights import folder_of
from training.checkpoint import read_info
from training.shard_reader import ShardReader

__all__ = ["StyleEvaluateReport", "run"]

logger = logging.getLogger(__name__)

JUDGED: Split = "test"
BARS = "distances.png"
_STYLE_SEED = 0
"""Of the choice of style pictures that are shown."""
MANY_PHOTOS = 100
"""From which on their squares are not needed for a steady figure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Whose drawings are judged."""

    name: str
    preset: str
    dataset: str
    """The photos."""
    style_dataset: str
    trained: Path
    """Folder that the engine is opened from."""
    weights_sha256: str
    size_px: int | None = None
    """Height and width in training: of the squares that are drawn; None: the shards'."""
    seed: int = 0
    step: int = 0
    images_seen: int = 0


def run(
    name: str, params: Params, paths: Paths, *, device: Device = "auto", open_engine: OpenEngine = open_trained
) -> StyleEvaluateReport:
    """Evaluate an experiment's exported model on its data set's test photos, against its style pictures.

    Writes the report, a table of the photos, bars and strips of pictures.

    Args:
        name: of the experiment.
        params: the project's.
        paths: where everything lies.
        device: where model and judges compute.
        open_engine: opens the exported model.

    Raises:
        ParamsError: the experiment is unknown.
        CheckpointError: it has no exported model.
        ClipError: shards are missing or broken, or hold too few pictures; or too many pictures fail.
        EnvironmentProblem: no Ray, or a judge or device can't be used.
    """
    experiment = params.experiment(name)
    assert experiment.style_dataset is not None, "a stylising experiment has style pictures"
    with only_writer(paths.report("evaluate", name)):
        info = read_info(paths.trained(name))
        subject = Subject(
            name=name,
            preset=info.preset,
            dataset=experiment.dataset,
            style_dataset=experiment.style_dataset,
            trained=paths.trained(name),
            weights_sha256=info.sha256,
            size_px=info.model.size_px,
            seed=info.train.seed,
            step=info.step,
            images_seen=info.images_seen,
        )
        return judge(subject, params, paths, device=device, open_engine=open_engine)


def judge(
    subject: Subject, params: Params, paths: Paths, *, device: Device, open_engine: OpenEngine
) -> StyleEvaluateReport:
    """Judge whatever draws, and write what `run` writes; the caller holds the report's lock.

    Raises:
        CheckpointError: what draws can't be opened.
        ClipError: see `run`.
        EnvironmentProblem: see `run`.
    """
    target, started_s = paths.report("evaluate", subject.name), time.perf_counter()
    photos, styles = (ShardReader(paths.shards(one)) for one in (subject.dataset, subject.style_dataset))
    places, style_places = _pictures(photos, styles, params.evaluation.squares)
    squares = places[0].squares
    size_px = min(photos.index.size_px, squares * (subject.size_px or photos.index.size_px))
    job = _job(subject.trained, photos, styles, (params.evaluation, device), (folder_of(paths), open_engine))
    job = dataclasses.replace(job, size_px=size_px)
    tasks = _tasks(places, style_places, params.evaluation)
    found = examine_all(job, tasks, cluster=params.cluster, size_px=size_px)
    by_place = {(one.of, one.place): one for one in bar(found, label="stylising", total=len(tasks))}
    results = [by_place[task.of, task.place] for task in tasks]  # whoever was first
    sets = _sets(subject, results)
    figures = _figures(sets, job.judges)
    with fresh_folder(paths.pictures("evaluate", subject.name)) as making:
        strip_names = _draw(making, sets, styles, params.evaluation)
        (making / BARS).write_bytes(plots.distance_bars(figures.made, figures.untouched, title=subject.name))
    report = StyleEvaluateReport(
        experiment=subject.name,
        preset=subject.preset,
        dataset=subject.dataset,
        style_dataset=subject.style_dataset,
        seed=subject.seed,
        metric=METRIC,
        split_rule=photos.index.split_rule,
        made=figures.made,
        untouched=figures.untouched,
        verdict=figures.verdict,
        num_photos=len(sets.photos),
        squares=squares,
        num_style_pictures=len(sets.styles),
        content_of_others=figures.content_of_others,
        size_px=size_px,
        jpeg_quality=photos.index.extra.get("jpeg_quality"),
        judges=tuple(one for one in job.judges.values() if isinstance(one, Network)),
        failures=sets.failures,
        step=subject.step,
        images_seen=subject.images_seen,
        weights_sha256=subject.weights_sha256,
        data_sha256=_index_sha256(photos),
        style_data_sha256=_index_sha256(styles),
        device=", ".join(sorted({one.device for one in results if one.device})),
        num_workers=len({one.worker for one in results if one.worker}),
        image_cost=_cost(job, sets),
        seconds=round(time.perf_counter() - started_s, 3),
        strips=strip_names,
    )
    write_text(target.with_name(f"{subject.name}-photos.csv"), table(sets.photos, figures.content_of_others))
    write_report(target, report)
    tell(report)
    return report


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sets:
    photos: Sequence[Examined]
    """In the shards' order, without failures."""
    styles: Sequence[Examined]
    failures: tuple[Failure, ...]


def _job(
    trained: Path,
    photos: ShardReader,
    styles: ShardReader,
    how: tuple[EvaluationConfig, Device],
    own: tuple[Path, OpenEngine],
) -> Job:
    (options, device), (weights, open_engine) = how, own
    judges = style_features.judges(weights)
    for name, reason in judges.items():
        if isinstance(reason, str):
            logger.info("without fid/%s, kid/%s and is/%s: %s", name, name, name, reason)
    return Job(
        trained=str(trained.absolute()),
        photos=str(photos.folder.absolute()),
        styles=str(styles.folder.absolute()),
        weights=str(weights.absolute()),
        judges=judges,
        num_threads=options.num_threads,
        num_workers=options.num_workers,
        device=device,
        open_engine=open_engine,
    )


def _tasks(places: Sequence[Place], styles: Sequence[Place], options: EvaluationConfig) -> list[Task]:
    firsts = [number for number, place in enumerate(places) if place.square == 0]  # a photo is shown whole, and once
    shown = [firsts[place] for place in strips.spread(len(firsts), options.num_strips * options.strip_frames)]
    return photo_tasks(places, shown) + [Task(of="styles", place=place) for place in styles]


def _sets(subject: Subject, results: Sequence[Examined]) -> _Sets:
    """Photos and style pictures that have been judged.

    Raises:
        ClipError: there are too few.
    """
    of = {"photos": subject.dataset, "styles": subject.style_dataset}
    failures = tuple(
        Failure(picture=str(one.place), dataset=of[one.of], reason=one.problem) for one in results if one.problem
    )
    well = [one for one in results if one.problem is None]
    sets = _Sets(
        photos=[one for one in well if one.of == "photos"],
        styles=[one for one in well if one.of == "styles"],
        failures=failures,
    )
    if min(len(sets.photos), len(sets.styles)) < 2:
        got = f"{len(failures)} failures, the first: {failures[0].reason}"
        raise ClipError(
            must(f"the evaluation of {subject.name}", "judge two photos and two style pictures or more", got)
        )
    return sets


@dataclass(frozen=True, slots=True, kw_only=True)
class _Figures:
    made: Mapping[str, Figure]
    untouched: Mapping[str, Figure]
    verdict: Verdict
    content_of_others: float


def _pictures(photos: ShardReader, styles: ShardReader, squares: int | None) -> tuple[list[Place], list[Place]]:
    """The test photos and all style pictures, cut into squares."""
    if squares is None:
        squares = 2 if len(photos.clips(JUDGED)) < MANY_PHOTOS else 1
    found = places_of(photos.clips(JUDGED), squares), places_of(styles.clips(), squares)
    for reader, places, what, fix in (
        (photos, found[0], f"two pictures of split {JUDGED}", "Raise datasets.<name>.test_share, or add photos"),
        (styles, found[1], "two pictures", "Add style pictures"),
    ):
        if len(places) < 2 * squares**2:
            got = str(len(places) // squares**2)
            raise ClipError(must(str(reader.folder), f"hold {what} or more", got, fix))
    return found


def _figures(sets: _Sets, judges: Mapping[str, Network | str]) -> _Figures:
    photos = sets.photos
    names = [name for name, judge in judges.items() if isinstance(judge, Network)]
    made, untouched = _seen(photos, "made", names), _seen(photos, "untouched", names)
    style, count = _seen(sets.styles, "style", names), len(photos)
    own = [one.figures for one in photos if one.figures]
    others = float(np.mean([one.content_others for one in own if one.content_others is not None] or [0.0]))
    if not others:
        raise ClipError(must("the test photos", "differ from each other", "equal ones", "Add photos"))
    content = float(np.mean([one.content for one in own])) / others
    plain = sum(one.photo_energy for one in own)
    detail = sum(one.energy for one in own) / plain if plain > 0 else 1.0
    absent = absent_figures(judges, count)

    def with_photos(seen: Mapping[str, Seen], content: float, detail: float) -> dict[str, Figure]:
        pair = figure("content", content, count, judge=EFFNET), figure("detail", detail, count)
        return {**set_figures(seen, style), CONTENT: pair[0], DETAIL: pair[1], **absent}

    return _Figures(
        made=with_photos(made, content, detail),
        untouched=with_photos(untouched, 0.0, 1.0),
        verdict=judge_model(made[EFFNET], untouched[EFFNET], style[EFFNET], content=content, detail=detail),
        content_of_others=others,
    )


def _seen(results: Sequence[Examined], which: Sets, judges: Sequence[str]) -> dict[str, Seen]:
    return {judge: stacked([one.look(which, judge) for one in results]) for judge in judges}


def _draw(folder: Path, sets: _Sets, reader: ShardReader, options: EvaluationConfig) -> tuple[str, ...]:
    """The strips' names; some of the photos and drawings are written singly, too."""
    shown = [one.arrays for one in sets.photos if "drawing" in one.arrays]
    styles = [sets.styles[place].place for place in np.random.default_rng(_STYLE_SEED).permutation(len(sets.styles))]
    clips, names = {clip.id: clip for clip in reader.clips()}, list[str]()
    for number, start in enumerate(range(0, len(shown), options.strip_frames)):
        part = shown[start : start + options.strip_frames]
        some = [styles[(start + place) % len(styles)] for place in range(len(part))]
        pictures = [reader.frames(clips[place.clip], [place.position])[0] for place in some]
        names.append(f"strip-{number}.png")
        png = plots.strip([one["photo"] for one in part], [one["drawing"] for one in part], pictures)
        (folder / names[-1]).write_bytes(png)
    for number, place in enumerate(strips.spread(len(shown), options.strip_frames)):
        one = shown[place]
        for what in ("photo", "drawing"):
            Image.fromarray(one[what]).save(folder / f"{what}-{number}.png", optimize=True)
    return tuple(names)


def _cost(job: Job, sets: _Sets) -> ImageCost | None:
    """Of one drawing; None where no photo is shown."""
    photo = next((one.arrays["photo"] for one in sets.photos if "photo" in one.arrays), None)
    if photo is None:
        return None
    with torch_threads(job.num_threads):
        return image_cost(job.open_engine(Path(job.trained), job.device), photo)


def _index_sha256(reader: ShardReader) -> str:
    return hashlib.sha256((reader.folder / INDEX_NAME).read_bytes()).hexdigest()
