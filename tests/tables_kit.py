"""Made-up reports of all trainings of a paper's tables."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.params import Params

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
        "second_stage": second if experiment.model.avd else None,
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


def score(value: float, copy_source: float, backbone: str | None) -> dict[str, Any]:
    files = DLIB if backbone else {}
    return {"value": value, "copy_source": copy_source, "backbone": backbone, "sha256": files, "absent": None, **COUNTS}


def write_reports(root: Path, params: Params) -> None:
    """Reports of everything that the papers train."""
    for paper in params.papers.values():
        for name in paper.experiments:
            folder = root / "reports" / params.report_folders()[name]
            folder.mkdir(parents=True, exist_ok=True)
            for stage, report in zip(("train", "evaluate"), made_up(params, name), strict=True):
                (folder / f"{stage}.json").write_text(json.dumps(report))
