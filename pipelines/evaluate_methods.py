"""Judges a paper's methods without training: their drawings of the test photos, as those of a trained model are."""

from __future__ import annotations

from pipelines import evaluate_style
from pipelines.engines import Device
from pipelines.evaluate_style import StyleEvaluateReport, Subject
from pipelines.params import Params
from pipelines.params_papers import method_named
from pipelines.stage import Paths, only_writer
from pipelines.style_methods import open_method
from pipelines.weights import folder_of


def run(name: str, params: Params, paths: Paths, *, device: Device = "auto") -> StyleEvaluateReport:
    """Draw the test photos by a method and write what the evaluation of a trained model writes.

    In the report ``preset`` is the method, ``weights_sha256`` the checksum of its settings; seed and step are 0.

    Args:
        name: ``<method>-on-<dataset>`` of a paper.
        params: the project's.
        paths: where everything lies.
        device: where method and judges compute.

    Raises:
        ParamsError: no paper has such a method.
        ClipError: shards are missing or broken, or hold too few pictures; or too many pictures fail.
        CheckpointError: a file of pretrained weights holds something else.
        EnvironmentProblem: no Ray, or the backbone's file, a judge or the device can't be used.
    """
    config = method_named(params.papers, name)
    subject = Subject(
        name=name,
        preset=config.method,
        dataset=config.dataset,
        style_dataset=config.style_dataset,
        trained=paths.trained(name),
        weights_sha256=config.sha256,
        size_px=_size_of_rows(params, config.dataset, config.style_dataset),
    )
    opener = open_method(config, styles=paths.shards(config.style_dataset), weights=folder_of(paths))
    with only_writer(paths.report("evaluate", name)):
        return evaluate_style.judge(subject, params, paths, device=device, open_engine=opener)


def _size_of_rows(params: Params, dataset: str, style_dataset: str) -> int | None:
    """At which the rows beside it were trained, so that all are judged alike."""
    rows = (row for paper in params.papers.values() for row in paper.experiments.values())
    sizes = (row.model.size_px for row in rows if row.datasets == (dataset, style_dataset))
    return next(sizes, None)
