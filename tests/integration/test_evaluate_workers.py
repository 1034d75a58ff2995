"""Evaluation end to end on real faces: two workers give the figures of one; a kill or a broken clip costs one clip."""

from __future__ import annotations

import csv
import functools
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from models.contracts import INDEX_NAME, ShardClip, ShardIndex
from models.errors import ClipError
from models.motion.networks import build, debug_config
from pipelines import evaluate, evaluate_work
from pipelines.params import EvaluationConfig, ExperimentConfig, Params, load
from pipelines.stage import Paths, as_json
from preprocessing.shards import encode_frames, write_shard
from preprocessing.video import read_frames
from training.checkpoint import CheckpointInfo, tensors_of, write_checkpoint
from training.config import MotionTrainConfig

SIZE_PX = 96
CLIPS = {"woman-0": "test", "woman-1": "test", "man-0": "unseen"}
OPTIONS = EvaluationConfig(num_workers=1, batch_size=4, num_strips=2, strip_frames=3, detect_every=2)


@functools.cache
def clip_frames(samples: Path) -> dict[str, np.ndarray]:
    """Seven frames of each clip, a square round the face."""
    made: dict[str, np.ndarray] = {}
    for name, file, box in (("woman", "woman-expressions.mp4", (233, 0, 352)), ("man", "man-smile.mp4", (126, 3, 356))):
        frames = np.concatenate(list(read_frames(samples / "faces" / file)))[::4]
        left, top, side = box
        cut = [frame[top : top + side, left : left + side] for frame in frames[:14]]
        small = np.stack([cv2.resize(one, (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_AREA) for one in cut])
        made |= {f"{name}-0": small[:7], f"{name}-1": small[7:]}
    return {name: made[name] for name in CLIPS}


def make_shards(folder: Path, samples: Path, *, broken: tuple[str, ...] = ()) -> None:
    """Shards of real faces; the third frame of each clip of ``broken`` is no JPEG."""
    folder.mkdir(parents=True)
    coded = {name: encode_frames(frames, quality=95) for name, frames in clip_frames(samples).items()}
    for name in broken:
        coded[name][2] = b"no JPEG"
    shard = write_shard(list(coded.items()), folder / "shard-00000.parquet")
    clips: Any = [
        ShardClip(id=name, split=split, identity=name[:-2], num_frames=7, fps=25.0, shard=0, row=row)  # type: ignore[arg-type]
        for row, (name, split) in enumerate(CLIPS.items())
    ]
    extra = {"jpeg_quality": 95}
    index = ShardIndex(
        dataset="faces", size_px=SIZE_PX, split_rule="time", shards=(shard,), clips=tuple(clips), extra=extra
    )
    (folder / INDEX_NAME).write_text(json.dumps(index.to_json()), encoding="utf-8")


def make_model(folder: Path, *, preset: str = "fomm", camera: float = 0.0, **options: Any) -> None:
    """A generator that hands the moved source on, a little blurred: faces stay faces without a training."""
    torch.manual_seed(0)
    config = debug_config(size_px=SIZE_PX, generator_down_blocks=1, generator_bottleneck_blocks=1, **options)
    networks = build(config)
    generator: Any = networks["generator"]
    with torch.no_grad():
        for name, layer in generator.named_modules():
            if isinstance(layer, nn.Conv2d) and not name.startswith("dense_motion_network"):
                _hand_on(layer, gain=0.0 if name.startswith("bottleneck") else 1.0)
        generator.final.weight.mul_(6.0)  # before a sigmoid: 6 x - 3 is nearly a straight line through the middle
        generator.final.bias.fill_(-3.0)
        for name, parameter in generator.dense_motion_network.named_parameters():
            if "occlusion" in name and name.endswith("bias"):
                parameter.fill_(8.0)  # all of it is seen
        if camera:
            networks["background_predictor"].fc.bias[2] = camera  # type: ignore[union-attr,index]
    average = {f"{name}.{key}": value for name, net in networks.items() for key, value in net.state_dict().items()}
    info = CheckpointInfo(
        step=5, images_seen=40, preset=preset, model=config, train=MotionTrainConfig(seed=3), sha256=""
    )
    folder.mkdir(parents=True)
    write_checkpoint(folder, info, tensors_of(networks, average), None)


def _hand_on(layer: nn.Conv2d, *, gain: float) -> None:
    layer.weight.zero_()
    if layer.bias is not None:
        layer.bias.zero_()
    middle = (layer.kernel_size[0] // 2, layer.kernel_size[1] // 2)
    for channel in range(min(3, layer.in_channels, layer.out_channels)):
        layer.weight[channel, channel, middle[0], middle[1]] = gain


def with_options(params: Params, **options: Any) -> Params:
    return replace(params, evaluation=replace(OPTIONS, **options))


@pytest.fixture(scope="module")
def params(root: Path) -> Params:
    loaded = load(root / "params.yaml")
    some = next(iter(loaded.experiments.values()))
    experiment = ExperimentConfig(preset="fomm", dataset="faces", model=some.model, train=some.train)
    return with_options(replace(loaded, experiments={"toy": experiment}))


@pytest.fixture(scope="module")
def quick(params: Params) -> Params:
    """Without identities, which take most of the time."""
    return with_options(params, metrics=("l1", "akd", "mkr"))


@pytest.fixture
def paths(tmp_path: Path, samples: Path) -> Paths:
    paths = Paths(tmp_path)
    make_shards(paths.shards("faces"), samples)
    make_model(paths.trained("toy"))
    return paths


def figures(report: evaluate.EvaluateReport) -> dict[str, Any]:
    """All of a report that must not depend on who made it."""
    plain = as_json(report)
    return {key: value for key, value in plain.items() if key not in ("seconds", "num_workers", "num_resumed")}


@pytest.mark.slow
def test_two_workers_give_the_figures_of_one_bit_for_bit(
    params: Params, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared: list[int] = []
    on_ray = evaluate_work._on_ray
    monkeypatch.setattr(evaluate_work, "_on_ray", lambda job, tasks: shared.append(len(tasks)) or on_ray(job, tasks))
    one = evaluate.run("toy", params, paths, device="cpu")
    files = {path.name: path.read_bytes() for path in paths.pictures("evaluate", "toy").iterdir()}
    rows = paths.report("evaluate", "toy").with_name("toy-videos.csv").read_text()
    two = evaluate.run("toy", with_options(params, num_workers=2), paths, device="cpu")
    assert (one.num_workers, one.num_resumed, two.num_resumed) == (1, 0, 0)
    assert len(shared) == 1  # by the second alone
    assert shared[0] >= 2
    assert two.num_workers >= 1  # which of the two takes which clip is Ray's
    assert figures(two) == figures(one)
    assert {path.name: path.read_bytes() for path in paths.pictures("evaluate", "toy").iterdir()} == files
    assert paths.report("evaluate", "toy").with_name("toy-videos.csv").read_text() == rows
    akd, mkr, aed = (one.test.metrics[name] for name in ("akd/dlib68", "mkr/dlib68", "aed/dlib-resnet"))
    assert mkr.value == 0 == mkr.copy_source
    assert akd.num_frames == 8  # frames 0, 2, 4, 6 of two clips
    assert akd.value is not None
    assert 0 < akd.value < 20
    assert aed.value is not None
    assert 0 < aed.value < 0.36  # still the same person
    assert (one.jpeg_quality, one.detect_every, one.failures) == (95, 2, ())
    assert [network.name for network in one.detectors] == ["dlib68", "dlib-resnet"]
    columns = list(csv.DictReader(rows.splitlines()))[0]
    assert {"akd/dlib68", "copy_source akd/dlib68", "mkr/dlib68", "eid/dlib68+dlib-resnet"} <= set(columns)


def test_an_evaluation_that_was_stopped_goes_on_with_the_next_clip(
    quick: Params, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = evaluate.run("toy", quick, paths, device="cpu")
    examined: list[str] = []
    examine = evaluate_work.Examiner.examine

    def stopping(self: evaluate_work.Examiner, task: evaluate_work.Task) -> evaluate_work.Examined:
        if len(examined) == 2:
            raise KeyboardInterrupt
        examined.append(task.video)
        return examine(self, task)

    def counting(self: evaluate_work.Examiner, task: evaluate_work.Task) -> evaluate_work.Examined:
        examined.append("+")
        return examine(self, task)

    monkeypatch.setattr(evaluate_work.Examiner, "examine", stopping)
    before = paths.report("evaluate", "toy").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        evaluate.run("toy", quick, paths, device="cpu")
    assert paths.report("evaluate", "toy").read_bytes() == before  # the old result stands
    assert len(list(paths.pictures("evaluate", "toy").iterdir())) == 3
    monkeypatch.setattr(evaluate_work.Examiner, "examine", counting)
    resumed = evaluate.run("toy", quick, paths, device="cpu")
    assert examined == ["woman-0", "woman-1", "+"]
    assert resumed.num_resumed == 2
    assert figures(resumed) == figures(whole)
    evaluate.run("toy", quick, paths, device="cpu")
    assert examined[3:] == ["+", "+", "+"]  # a finished one begins anew


def test_other_settings_begin_anew(quick: Params, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    examine = evaluate_work.Examiner.examine
    examined: list[str] = []

    def stopping(self: evaluate_work.Examiner, task: evaluate_work.Task) -> evaluate_work.Examined:
        if examined:
            raise KeyboardInterrupt
        examined.append(task.video)
        return examine(self, task)

    monkeypatch.setattr(evaluate_work.Examiner, "examine", stopping)
    with pytest.raises(KeyboardInterrupt):
        evaluate.run("toy", quick, paths, device="cpu")
    monkeypatch.undo()
    assert (
        evaluate.run(
            "toy", replace(quick, evaluation=replace(quick.evaluation, detect_every=3)), paths, device="cpu"
        ).num_resumed
        == 0
    )


def test_a_broken_clip_is_named_and_the_others_stand(
    quick: Params, tmp_path: Path, samples: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = Paths(tmp_path)
    make_shards(paths.shards("faces"), samples, broken=("woman-1",))
    make_model(paths.trained("toy"))
    report = evaluate.run("toy", quick, paths, device="cpu")
    [failure] = report.failures
    assert (failure.video, failure.split) == ("woman-1", "test")
    assert "clip woman-1 must hold frames of 96 x 96 (frame 2); got bytes that are no JPEG" in failure.reason
    assert (report.test.num_videos, report.test.num_frames) == (1, 7)
    assert report.unseen is not None
    assert "woman-1 failed" in caplog.text
    again = evaluate.run("toy", quick, paths, device="cpu")
    assert again.num_resumed == 2  # what stands is not done again, what failed is tried
    assert figures(again) == figures(report)


def test_when_every_test_clip_fails_so_does_the_stage(quick: Params, tmp_path: Path, samples: Path) -> None:
    paths = Paths(tmp_path)
    make_shards(paths.shards("faces"), samples, broken=("woman-0", "woman-1"))
    make_model(paths.trained("toy"))
    with pytest.raises(ClipError, match=r"reconstruct one test clip or more; got 2 failures, the first: .*woman-0"):
        evaluate.run("toy", quick, paths, device="cpu")
    assert not paths.report("evaluate", "toy").exists()


def test_a_model_with_a_background_is_judged_with_it(params: Params, tmp_path: Path, samples: Path) -> None:
    reports = []
    for camera in (0.0, 0.5):  # at rest, and moved by a quarter of the frame
        paths = Paths(tmp_path / str(camera))
        make_shards(paths.shards("faces"), samples)
        options = {"motion": "articulated", "background": "affine", "camera": camera}
        make_model(paths.trained("toy"), preset="articulated", **options)
        reports.append(evaluate.run("toy", with_options(params, metrics=("l1",)), paths, device="cpu"))
    assert reports[0].test.l1 < 0.3
    assert reports[1].test.l1 != pytest.approx(reports[0].test.l1, rel=0.01)
    assert list(reports[0].test.metrics) == ["l1"]
    assert reports[0].detectors == ()


def main() -> None:
    """Evaluate the toy in a folder, slowly, for a test to kill."""
    examine = evaluate_work.Examiner.examine

    def slow(self: evaluate_work.Examiner, task: evaluate_work.Task) -> evaluate_work.Examined:
        done = examine(self, task)
        time.sleep(1.0)
        return done

    evaluate_work.Examiner.examine = slow  # type: ignore[method-assign]
    loaded = load(Path(sys.argv[1]) / "params.yaml")
    some = next(iter(loaded.experiments.values()))
    experiment = ExperimentConfig(preset="fomm", dataset="faces", model=some.model, train=some.train)
    evaluate.run(
        "toy", with_options(replace(loaded, experiments={"toy": experiment})), Paths(Path(sys.argv[2])), device="cpu"
    )


@pytest.mark.slow
def test_an_evaluation_killed_with_9_goes_on(params: Params, paths: Paths, root: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(root)}
    process = subprocess.Popen([sys.executable, __file__, str(root), str(paths.root)], env=environment, cwd=root)
    journal = paths.root / "reports" / "evaluate" / ".toy.journal.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if journal.exists() and journal.read_bytes().count(b"\n") >= 1:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not paths.report("evaluate", "toy").exists()
    resumed = evaluate.run("toy", params, paths, device="cpu")
    assert resumed.num_resumed >= 1
    whole = evaluate.run("toy", params, paths, device="cpu")
    assert whole.num_resumed == 0
    assert figures(resumed) == figures(whole)
    assert asdict(resumed.test) == asdict(whole.test)


if __name__ == "__main__":
    main()
