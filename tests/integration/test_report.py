"""Evaluate, animate and report on tiny shards and networks; the page with all, with nothing, with hostile names."""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from report_kit import fill_style, fill_stylisation, page_of, put

from models.catalog import MODELS
from models.contracts import INDEX_NAME, ShardClip, ShardFile, ShardIndex
from models.motion.networks import build, debug_config
from pipelines import animate, evaluate, plots, report, strips
from pipelines.engines import from_checkpoint
from pipelines.params import AnimationConfig, Params, load
from pipelines.stage import Paths
from preprocessing.shards import encode_frames, write_shard
from preprocessing.video import write_gif, write_video
from training.checkpoint import CheckpointInfo, tensors_of, write_checkpoint
from training.config import MotionTrainConfig

SIZE = 32


def moving(num_frames: int, seed: int) -> np.ndarray:
    """A disc that wanders over a still background."""
    rng = np.random.default_rng(seed)
    ground = cv2.resize(rng.integers(0, 200, (4, 4, 3), dtype=np.uint8), (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    frames = np.repeat(ground[None], num_frames, axis=0)
    for place, frame in enumerate(frames):
        cv2.circle(frame, (6 + place * 2 % 20, 16), 5, (250, 240, 230), -1)
    return frames


def make_shards(folder: Path, clips: dict[str, tuple[str, np.ndarray]]) -> str:
    """Shards of one file; the index's sha256."""
    folder.mkdir(parents=True)
    rows = [(name, encode_frames(frames, quality=95)) for name, (_, frames) in clips.items()]
    shard: ShardFile = write_shard(rows, folder / "shard-00000.parquet")
    entries: Any = tuple(
        ShardClip(id=name, split=split, identity=name, num_frames=len(frames), fps=25.0, shard=0, row=row)  # type: ignore[arg-type]
        for row, (name, (split, frames)) in enumerate(clips.items())
    )
    index = ShardIndex(dataset="faces", size_px=SIZE, split_rule="time", shards=(shard,), clips=entries)
    (folder / INDEX_NAME).write_text(json.dumps(index.to_json()), encoding="utf-8")
    return hashlib.sha256((folder / INDEX_NAME).read_bytes()).hexdigest()


def make_model(folder: Path, data: str) -> None:
    torch.manual_seed(0)
    networks = build(debug_config())
    average = {f"{name}.{key}": value for name, net in networks.items() for key, value in net.state_dict().items()}
    info = CheckpointInfo(
        step=5,
        images_seen=40,
        preset="fomm",
        model=debug_config(),
        train=MotionTrainConfig(seed=3),
        sha256="",
        data=data,
    )
    folder.mkdir(parents=True)
    write_checkpoint(folder, info, tensors_of(networks, average), None)


@pytest.fixture
def params(root: Path) -> Params:
    return load(root / "params.yaml")


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path)


@pytest.fixture
def evaluated(params: Params, paths: Paths) -> evaluate.EvaluateReport:
    clips = {
        "walk-000000": ("train", moving(8, 0)),
        "walk-000020": ("test", moving(6, 1)),
        "run-000000": ("test", moving(5, 2)),
        "man 'x'-000000": ("unseen", moving(4, 3)),
    }
    data = make_shards(paths.shards("faces"), clips)
    make_model(paths.trained("fomm-faces"), data)
    return evaluate.run("fomm-faces", params, paths, device="cpu")


def test_evaluate_writes_metrics_table_and_pictures(evaluated: evaluate.EvaluateReport, paths: Paths) -> None:
    written = json.loads(paths.report("evaluate", "fomm-faces").read_text())
    assert (written["seed"], written["split_rule"], written["metric"]) == (3, "time", "l1")
    assert (written["test"]["num_videos"], written["test"]["num_frames"]) == (2, 11)
    assert (written["unseen"]["num_videos"], written["unseen"]["num_identities"]) == (1, 1)
    assert written["test"]["ratio"] == pytest.approx(written["test"]["l1"] / written["test"]["copy_source_l1"])
    assert written["trained_on_same_data"] is True
    assert written["weights_sha256"] == evaluated.weights_sha256
    table = paths.report("evaluate", "x").with_name("fomm-faces-videos.csv").read_text()
    rows = list(csv.DictReader(table.splitlines()))
    assert {row["split"] for row in rows} == {"test", "unseen"}
    test = [row for row in rows if row["split"] == "test"]
    mean = np.average([float(row["l1"]) for row in test], weights=[int(row["frames"]) for row in test])
    assert mean == pytest.approx(evaluated.test.l1, abs=1e-7)
    folder = paths.pictures("evaluate", "fomm-faces")
    assert {path.name for path in folder.iterdir()} == {"videos.png", *evaluated.strips}
    assert len(evaluated.strips) == 3
    for name in evaluated.strips:
        with Image.open(folder / name) as strip:
            assert strip.width > 400


def test_evaluate_again_gives_the_same_figures(
    evaluated: evaluate.EvaluateReport, params: Params, paths: Paths
) -> None:
    again = evaluate.run("fomm-faces", params, paths, device="cpu")
    assert replace(again, seconds=0.0) == replace(evaluated, seconds=0.0)


def test_the_animation_stage_leaves_gif_mp4_webp_and_strip(
    evaluated: evaluate.EvaluateReport, params: Params, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, _ = from_checkpoint(paths.trained("fomm-faces"), device="cpu")
    monkeypatch.setattr(animate, "registered", lambda *_: ("models:/fomm-faces/1", engine))
    Image.fromarray(moving(1, 5)[0]).save(paths.root / "face.png")
    write_video(paths.root / "drive.mp4", moving(6, 6), fps=10)
    entry = AnimationConfig(experiment="fomm-faces", source="face.png", driving="drive.mp4", crop=False, max_frames=4)
    made = animate.run("wave", replace(params, animations={"wave": entry}), paths)
    folder = paths.pictures("animate", "wave")
    assert {path.name for path in folder.iterdir()} == {"wave.gif", "wave.mp4", "wave.webp", "strip.png"}
    assert made.outputs == ("reports/animate/wave/wave.gif", "reports/animate/wave/wave.mp4")
    with Image.open(folder / "wave.webp") as shown:
        assert made.num_frames == shown.n_frames == 4  # type: ignore[attr-defined]
    written = json.loads(paths.report("animate", "wave").read_text())
    assert (written["source"], written["model"], written["fps"]) == ("face.png", "models:/fomm-faces/1", 10.0)


def fill(params: Params, paths: Paths) -> None:
    """Reports of every stage, as the stages write them."""
    for name, dataset in params.datasets.items():
        put(paths, "download", name, {"items": 4, "kept": 4, "seconds": 0.5})
        put(paths, "cut", name, {"items": 4, "kept": 3, "clips": 5, "rejected": {"no-subject": 1}, "seconds": 2.0})
        splits = {"clips_of_split": {"train": 3, "test": 2}, "frames_of_split": {"train": 90, "test": 30}}
        put(paths, "shard", name, {"clips": 5, "frames": 120, "split_rule": dataset.split, "bytes": 5000, **splits})
        folder = paths.pictures("cut", name)
        folder.mkdir(parents=True)
        strips.write_strip(folder / "contact.png", {"": moving(4, 0)}, cell_px=32)
    for name, experiment in params.experiments.items():
        if MODELS[experiment.preset].family == "style":
            fill_style(paths, name, moving(3, 2), moving(3, 3))
            continue
        if MODELS[experiment.preset].family == "dualstyle":  # it is judged as a whole, when all of it is trained
            put(paths, "train", name, {"steps": 40, "images_seen": 320, "preset": experiment.preset})
            rows = ["step,loss/generator/gan,validation/kid", "1,2.5,0.9", "2,2.0,0.8", "3,1.5,0.6"]
            paths.report("train", name).with_name(f"{name}-losses.csv").write_text("\n".join(rows) + "\n")
            continue
        put(paths, "train", name, {"steps": 160, "images_seen": 1280, "samples_per_s": 28.5, "data_wait_share": 0.004})
        rows = ["step,loss/total,loss/pixel,validation/l1,validation/copy_source_l1"]
        rows += [f"{step},{50 / step},{10 / step},{0.12 - step * 1e-4},0.12" for step in range(1, 40)]
        paths.report("train", name).with_name(f"{name}-losses.csv").write_text("\n".join(rows) + "\n")
        test = {"l1": 0.1, "copy_source_l1": 0.125, "num_videos": 2, "num_frames": 30}
        unseen = {"l1": 0.17, "copy_source_l1": 0.075, "num_videos": 1, "num_frames": 20}
        put(paths, "evaluate", name, {"seed": 1, "split_rule": "time", "test": test, "unseen": unseen})
        folder = paths.pictures("evaluate", name)
        folder.mkdir(parents=True)
        strips.write_strip(folder / "strip-a.png", {"source": moving(3, 0), "result": moving(3, 1)}, cell_px=32)
        (folder / "videos.png").write_bytes(plots.video_bars([("a", 0.1, 0.2)]))
        decision = "Promoted: no champion stood before."
        put(paths, "register", name, {"name": name, "version": 1, "aliases": ["champion"], "decision": decision})
    for name in params.dualstyles:
        fill_faces(paths, name)
    for name in params.systems:
        put(paths, "register", name, {"name": name, "version": 1, "aliases": ["champion"]})
    for name in params.animations:
        folder = paths.pictures("animate", name)
        folder.mkdir(parents=True)
        write_gif(folder / f"{name}.gif", moving(3, 1), fps=5)
        put(
            paths,
            "animate",
            name,
            {"source": "a/b.png", "driving": "c.mp4", "motion": "relative", "note": "Take note."},
        )
    for name in params.stylised_datasets:
        put(paths, "stylise-clips", name, {"clips": 6, "stylised_clips": 2})
    for name in params.stylisations:
        fill_stylisation(paths, name, moving(1, 4)[0], moving(1, 5)[0])


def fill_faces(paths: Paths, name: str) -> None:
    """Reports and pictures of a DualStyleGAN."""
    sides = {
        side: {"kid/effnet-lite0": {"value": value, "std": 0.01}} for side, value in (("made", 0.3), ("untouched", 0.4))
    }
    moves = {"structure": {"edges": 0.7, "colours": 0.1}, "colour": {"edges": 0.2, "colours": 0.6}}
    holds = {"structure moves edges more than colour does": True, "cartoons are nearer": False}
    put(paths, "evaluate", name, {**sides, **moves, "holds": holds, "reconstruction_l1": 0.1, "mean_face_l1": 0.2})
    put(paths, "destylise", name, {"first_loss": 9.0, "last_loss": 2.5, "pictures": 48})
    put(paths, "refine", name, {"distance_before": 3.5, "distance_after": 2.5, "steps": 30})
    put(paths, "register", name, {"name": name, "version": 1, "aliases": ["champion"]})
    for stage, file in (("evaluate", "style-0.png"), ("destylise", "strip.png")):
        folder = paths.pictures(stage, name)
        folder.mkdir(parents=True)
        Image.fromarray(moving(1, 6)[0]).save(folder / file)


def test_the_page_with_everything(params: Params, paths: Paths) -> None:
    fill(params, paths)
    made = report.run(params, paths)
    text, found = page_of(paths)
    assert "3.500, 2.500" in text
    assert made.missing == ()
    assert made.bytes == len(text.encode())
    for wanted in ("0.1000", "0.1250", "0.800", "learned", "0.1700", "no-subject", "3 of 4", "1,280", "28.5", "0.4%"):
        assert wanted in text, wanted
    for wanted in (
        "models:/fomm-faces@champion",
        "Promoted: no champion",
        "Take note.",
        "load_model",
        "time",
        "Faces into cartoons",
        "0.700, 0.100",
    ):
        assert wanted in text, wanted
    styles = [name for name, one in params.experiments.items() if MODELS[one.preset].family == "style"]
    faces = [name for name, one in params.experiments.items() if MODELS[one.preset].family == "dualstyle"]
    motions = len(params.experiments) - len(styles) - len(faces)
    pictures = [uri for uri in found.fetched if uri.startswith("data:image/")]
    of_motion = motions * (2 + 4) + len(params.animations)  # strip and bars, two themed curves
    of_style = len(styles) * (2 + 8) + 2 * len(params.stylisations)  # strip and bars, four themed curves; pairs
    of_faces = len(faces) * 4 + len(params.dualstyles) * 2  # two themed curves; a strip, and faces behind styles
    assert len(pictures) == len(params.datasets) + of_motion + of_style + of_faces
    assert {link for link in found.links if not link.startswith("#")} == {
        *(f"animate/{name}/{name}.gif" for name in params.animations),
        *(f"stylise/{name}/drawing.png" for name in params.stylisations),
    }


def test_a_model_of_faces_over_the_threshold_is_not_called_learned(params: Params, paths: Paths) -> None:
    put(paths, "evaluate", "fomm-faces", {"test": {"l1": 0.095, "copy_source_l1": 0.1}})
    put(paths, "evaluate", "fomm-cartoons", {"test": {"l1": 0.095, "copy_source_l1": 0.1}})
    report.run(params, paths)
    text, _ = page_of(paths)
    assert ">not yet<" in text
    assert ">learned<" not in text
    assert ">better than copy-source<" in text


def test_the_page_with_nothing_says_what_has_not_run(params: Params, paths: Paths) -> None:
    made = report.run(params, paths)
    text, found = page_of(paths)
    trained = [name for name in params.experiments if MODELS[params.experiment(name).preset].family == "dualstyle"]
    stages = 3 * len(params.datasets) + 3 * len(params.experiments) - 2 * len(trained)  # these are judged as a whole
    stages += 4 * len(params.dualstyles) + len(params.systems) + len(params.stylised_datasets)
    assert len(made.missing) == stages + len(params.animations) + len(params.stylisations)
    for wanted in ("Nothing has been trained", "Nothing has been evaluated", "No animation", "No drawing", "No model"):
        assert wanted in text, wanted
    assert "img" not in found.tags


def test_hostile_names_are_shown_and_not_run(params: Params, paths: Paths) -> None:
    evil = "<script>alert(1)</script>\"'><img src=http://x onerror=alert(1)>"
    test = {"l1": 0.1, "copy_source_l1": 0.2}
    put(paths, "evaluate", "evil", {"dataset": evil, "split_rule": evil, "device": evil, "test": test})
    put(paths, "train", "evil", {"dataset": evil, "preset": evil, "steps": 3})
    put(paths, "register", "evil", {"name": evil, "version": evil, "aliases": [evil], "decision": evil})
    put(paths, "animate", "evil", {"source": evil, "driving": evil, "note": evil})
    put(paths, "stylise", "evil", {"source": evil, "kind": evil, "note": evil})
    put(paths, "cut", "faces", {"items": 3, "kept": 1, "rejected": {evil: 2}})
    report.run(params, paths)
    text, found = page_of(paths)
    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "img" not in found.tags


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"test": {"l1": "NaN"}}', '{"test": [1, 2], "seed": "x"}'])
def test_broken_reports_do_not_stop_the_page(params: Params, paths: Paths, content: str) -> None:
    for stage in ("evaluate", "train", "register", "shard", "cut", "animate", "stylise", "download"):
        target = paths.report(stage, "fomm-faces")
        target.parent.mkdir(parents=True)
        target.write_text(content, encoding="utf-8")
    paths.report("train", "x").with_name("fomm-faces-losses.csv").write_bytes(b"\xff\xfe,\n1,2")
    folder = paths.pictures("evaluate", "fomm-faces")
    folder.mkdir(parents=True)
    (folder / "strip-a.png").write_bytes(b"no picture")
    report.run(params, paths)
    text, _ = page_of(paths)
    assert "inkmotion" in text
