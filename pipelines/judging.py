"""The evaluate stage, by the family of the experiment's model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.catalog import MODELS
from pipelines.params import Params
from pipelines.params_papers import methods_of
from pipelines.stage import Paths

if TYPE_CHECKING:
    from pipelines.evaluate import EvaluateReport
    from pipelines.evaluate_dualstyle import DualStyleEvaluateReport
    from pipelines.evaluate_style import StyleEvaluateReport


def run(name: str, params: Params, paths: Paths) -> EvaluateReport | StyleEvaluateReport | DualStyleEvaluateReport:
    """Judge an experiment's exported model, or a paper's method.

    See `pipelines.evaluate.run`, `pipelines.evaluate_style.run` and `pipelines.evaluate_methods.run`.
    """
    if name in methods_of(params.papers):
        from pipelines import evaluate_methods

        return evaluate_methods.run(name, params, paths)
    if name in params.all_dualstyles:
        from pipelines import evaluate_dualstyle

        return evaluate_dualstyle.run(name, params, paths)
    if MODELS[params.experiment(name).preset].family == "style":
        from pipelines import evaluate_style

        return evaluate_style.run(name, params, paths)
    from pipelines import evaluate

    return evaluate.run(name, params, paths)
