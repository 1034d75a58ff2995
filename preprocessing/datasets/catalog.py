"""The public data sets, by name."""

from __future__ import annotations

from models.errors import ParamsError, Problem
from preprocessing.datasets import (
    animation_film,
    cartoon_faces,
    celeb_df,
    fashion,
    ffhq,
    ink_film,
    landscape_photos,
    mgif,
    taichihd,
    voxceleb1,
)
from preprocessing.datasets.spec import DatasetSpec

DATASETS: dict[str, DatasetSpec] = {
    "voxceleb1": voxceleb1.SPEC,
    "taichihd": taichihd.SPEC,
    "mgif": mgif.SPEC,
    "fashion": fashion.SPEC,
    "ffhq": ffhq.SPEC,
    "celeb-df-v2": celeb_df.SPEC,
    "ink-film": ink_film.SPEC,
    "animation-film": animation_film.SPEC,
    "landscape-photos": landscape_photos.SPEC,
    "cartoon-faces": cartoon_faces.SPEC,
}


def dataset_spec(name: str) -> DatasetSpec:
    """What is known of a public data set.

    Raises:
        ParamsError: no data set of that name; with the names there are.
    """
    if name not in DATASETS:
        raise ParamsError([Problem("preset", name, f"be one of {', '.join(DATASETS)}")])
    return DATASETS[name]
