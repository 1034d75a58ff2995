"""The cut stage of a film: distinct stills with their manifest, on Ray Data."""

from __future__ import annotations

from pipelines.crop import CutReport, cut_dataset
from pipelines.params import Params
from pipelines.stage import Paths
from preprocessing.frames import stills_item


def run(name: str, params: Params, paths: Paths) -> CutReport:
    """Take the stills out of a data set's films; reports/cut/<name>.json.

    Args:
        name: of the data set.
        params: how many stills, how distinct; where Ray is.
        paths: where raw media are and stills go. Every Ray node must reach both.

    Raises:
        ClipError: the download stage has not run, or an identity or file is in two splits.
        ParamsError: too few identities or sources for the split's rule.
        SourceError: too few items can be used; with counts by reason.
        EnvironmentProblem: no Ray, a full disk, or another process writes the same stills.
    """
    return cut_dataset(name, params, paths, task=stills_item)
