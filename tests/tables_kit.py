"""Made-up reports of all trainings of a paper's tables."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from models.catalog import MODELS
from pipelines.params import Params
from pipelines.params_papers import method_name, methods_of

COUNTS = {"num_frames": 30, "num_left_out": 0, "num_missed": 0}
DLIB = {"landmarks.dat": "ab" * 32}


def made_up(params: Params, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reports of train and evaluate of one experiment, by its name alone."""
    experiment = params.experiment(name)
    row = name.rpartition("-seed")[0]
    draws = np.random.default_rng(int(hashlib.sha256(row.encode()).hexdigest()[:8], 16))
    level = draws.uniform(0.05, 0.09)
    noise = np.random.default_rng(int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)).normal(0, 0.002, 3)
    weights = hashlib.sha256(name.encode()).hexdigest()
    second = {"steps": 20, "step_s": 0.011 + abs(noise[2]), "seconds": 0.4, "images_seen": 160}
    facts = json.dumps([asdict(experiment.model), asdict(experiment.train)], sort_keys=True)
    train = {
        "experiment": name,
        "preset": experiment.preset,
        "dataset": experiment.dataset,
        "steps": experiment.train.max_steps,
        "images_seen": experiment.train.max_steps * experiment.train.batch_size,
        "seconds": 40.0 + noise[0],
        "step_s": level * 5 + noise[1],
        "device": "cpu",
        "weights_sha256": weights,
        "memory_mb": 970.0,
        "num_parameters": {"generator": 1_394_709, "keypoint_detector": 251_120, "discriminator": 100_321},
        "second_stage": second if getattr(experiment.model, "avd", False) else None,
        "tags": {"params_sha256": hashlib.sha256(facts.encode()).hexdigest()},
    }
    metrics = {
        "akd/dlib68": score(level * 40 + noise[1] * 40, 6.1, "dlib68"),
        "mkr/dlib68": score(level / 10, 0.004, "dlib68"),
        "aed": {"value": None, "copy_source": None, "absent": "no network of identity for bodies", "sha256": {}},
        "eid": score(level * 100 + 3, 14.0, None),
    }
    test = {"l1": level + noise[0], "copy_source_l1": 0.0801, "num_videos": 4, "num_frames": 118, "metrics": metrics}
    unseen = {"l1": level * 3, "copy_source_l1": 0.0684, "num_videos": 2, "num_frames": 144, "metrics": {}}
    judged = {
        "experiment": name,
        "preset": experiment.preset,
        "dataset": experiment.dataset,
        "seed": experiment.train.seed,
        "split_rule": "time",
        "size_px": experiment.model.size_px,
        "max_frames": None,
        "detect_every": 4,
        "weights_sha256": weights,
        "data_sha256": hashlib.sha256(experiment.dataset.encode()).hexdigest(),
        "test": test,
        "unseen": unseen if experiment.dataset in ("faces", "celeb-df") else None,
    }
    return train, judged


GENERATORS = {"lwcomicgan": 2_796_416, "animegan": 3_956_096, "cartoongan": 11_130_752}
LITE0 = {"lite0.pth": "cd" * 32}
NO_INCEPTION = "inception needs the packages torch-fidelity and torchvision"


def made_up_drawings(params: Params, name: str) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Reports of train and evaluate of an experiment of the style family, or of a method, which has no first one."""
    method = methods_of(params.papers).get(name)
    draws = np.random.default_rng(int(hashlib.sha256(name.encode()).hexdigest()[:8], 16))
    far = draws.uniform(0.5, 0.9)
    judged: dict[str, Any] = {
        "experiment": name,
        "dataset": "photos",
        "style_dataset": "paintings",
        "split_rule": "source",
        "size_px": 256,
        "num_photos": 6,
        "squares": 1,
        "num_style_pictures": 19,
        "data_sha256": "11" * 32,
        "style_data_sha256": "22" * 32,
        "judges": [{"name": "effnet-lite0", "what": "a network", "sha256": LITE0}],
        "made": drawing_figures(fid=300 * far, kid=far, score=2 + far, content=0.3 * far, detail=far),
        "untouched": drawing_figures(fid=310.0, kid=1.2, score=3.1, content=0.0, detail=1.0),
        "image_cost": {"seconds": far, "memory_mb": 90.5, "size_px": 256, "num_threads": 1, "device": "cpu"},
    }
    if method is not None:
        return None, {**judged, "preset": method.method, "seed": 0, "weights_sha256": method.sha256}
    train, motion = made_up(params, name)
    layout, seconds = params.experiment(name).model.layout, params.experiment(name).train.max_seconds
    counts = {"generator": GENERATORS.get(layout, 1_000_000), "critic": 1_127_520}
    train |= {"num_parameters": counts, "stopped_early": True, "steps": 150, "seconds": seconds}
    return train, {**judged, **{key: motion[key] for key in ("preset", "seed", "weights_sha256")}}


def drawing_figures(*, fid: float, kid: float, score: float, content: float, detail: float) -> dict[str, Any]:
    """As `pipelines.evaluate_style_figures.Figure`, where Inception is not there."""
    values = {"fid": fid, "kid": kid, "is": score, "content": content}
    named = {f"{key}/effnet-lite0": _figure(value, "effnet-lite0") for key, value in values.items()}
    absent = {f"{key}/inception": _figure(None, "inception") for key in ("fid", "kid", "is")}
    return {**absent, **named, "detail": _figure(detail, None)}


def _figure(value: float | None, backbone: str | None) -> dict[str, Any]:
    spread = None if value is None or backbone is None else 0.01
    absent = NO_INCEPTION if value is None else None
    return {"value": value, "std": spread, "num_pictures": 6, "backbone": backbone, "absent": absent}


def score(value: float, copy_source: float, backbone: str | None) -> dict[str, Any]:
    files = DLIB if backbone else {}
    return {"value": value, "copy_source": copy_source, "backbone": backbone, "sha256": files, "absent": None, **COUNTS}


def write_reports(root: Path, params: Params) -> None:
    """Reports of everything that the papers train."""
    for paper in params.papers.values():
        methods = [method_name(*key) for key in paper.methods]
        for name in (*paper.experiments, *methods):
            folder = root / "reports" / params.report_folders()[name]
            folder.mkdir(parents=True, exist_ok=True)
            draws = name in methods or MODELS[params.experiment(name).preset].family == "style"
            reports = (made_up_drawings if draws else made_up)(params, name)
            for stage, report in zip(("train", "evaluate"), reports, strict=True):
                if report is not None:
                    (folder / f"{stage}.json").write_text(json.dumps(report))
