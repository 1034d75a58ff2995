"""The torch engine: the same as the networks called by hand, in any batches, with and without Jacobians."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from motion_kit import debug_of, networks_of

from models.errors import CheckpointError, EnvironmentProblem, ParamsError, ShapeError, must
from models.motion.keypoints import Keypoints
from models.motion.networks import build, debug_config
from pipelines import animate, registry
from pipelines.engines import SOURCES_KEPT, TorchSession, from_checkpoint, from_version
from pipelines.registry import Store, Version
from pipelines.served.motion import Motion
from pipelines.stage import Paths
from training.checkpoint import CheckpointInfo, tensors_of, write_checkpoint
from training.config import AvdConfig, MotionTrainConfig

SIZE = 32


def session(**changes: Any) -> tuple[TorchSession, dict[str, Any]]:
    torch.manual_seed(0)
    networks: dict[str, Any] = build(debug_config(**changes))
    generator, detector, avd = (networks.get(name) for name in ("generator", "keypoint_detector", "avd"))
    return TorchSession(generator, detector, avd=avd, size_px=SIZE, device="cpu", batch_size=3), networks  # type: ignore[arg-type]


def frames(count: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)


REGIONS = {"motion": "articulated", "generator_skips": True, "heat_map_padding": 3, "avd": True}


@pytest.mark.parametrize("options", [{}, {"estimate_jacobian": False}, REGIONS])
def test_reconstruction_equals_the_networks_called_by_hand(options: dict[str, Any]) -> None:
    engine, networks = session(**options)
    video = frames(7)
    made = engine.render(video[0], engine.keypoints(video))
    planes = torch.from_numpy(video.transpose(0, 3, 1, 2).astype(np.float32) / 255)
    with torch.no_grad():
        source, driving = (
            networks["keypoint_detector"](planes[:1].repeat(7, 1, 1, 1)),
            networks["keypoint_detector"](planes),
        )
        wanted = networks["generator"](
            planes[:1].repeat(7, 1, 1, 1), source_keypoints=source, driving_keypoints=driving
        )
    np.testing.assert_allclose(made, wanted.prediction.permute(0, 2, 3, 1).numpy(), atol=1e-5)
    assert made.dtype == np.float32


def test_without_jacobians_the_identity_is_given() -> None:
    engine, _ = session(estimate_jacobian=False)
    motion = engine.keypoints(frames(4))
    assert motion.value.shape == (4, 3, 2)
    np.testing.assert_array_equal(motion.jacobian, np.broadcast_to(np.eye(2), (4, 3, 2, 2)))


def test_regions_have_axes_and_covariances() -> None:
    engine, _ = session(**REGIONS)
    found = engine.keypoints(frames(4))
    assert found.covariance is not None
    np.testing.assert_allclose(found.jacobian @ found.jacobian.swapaxes(-1, -2), found.covariance, atol=1e-6)


def test_avd_equals_the_network_called_by_hand_and_needs_it() -> None:
    engine, networks = session(**REGIONS)
    pose, source = engine.keypoints(frames(5)), frames(1)[0]
    found = engine.disentangle(source, pose)
    identity, parts = engine.keypoints(source[None]), [torch.from_numpy(part) for part in pose]  # type: ignore[arg-type]
    still = Keypoints(*(torch.from_numpy(part).expand(5, *part.shape[1:]) for part in identity))  # type: ignore[union-attr, arg-type]
    with torch.inference_mode():
        wanted = networks["avd"](still, Keypoints(*parts))
    for got, part in zip(found, wanted, strict=True):
        np.testing.assert_allclose(got, part.numpy(), atol=1e-6)
    assert engine.has_avd
    plain, _ = session()
    assert not plain.has_avd
    with pytest.raises(ParamsError, match="which has no AVD network"):
        plain.disentangle(source, plain.keypoints(frames(1)))


def test_a_source_is_encoded_once_however_many_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, networks = session()
    asked, encode = [], networks["generator"].encode
    monkeypatch.setattr(networks["generator"], "encode", lambda source: asked.append(1) or encode(source))
    video = frames(6)
    motion = engine.keypoints(video)
    whole = engine.render(video[0], motion)
    parts = [engine.render(video[0].copy(), motion.part(start, start + 2)) for start in (0, 2, 4)]
    assert len(asked) == 1
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-6)
    for frame in video:
        engine.render(frame, motion.take(0))
    assert len(asked) == len(video)
    assert len(engine._encoded) == SOURCES_KEPT
    np.testing.assert_allclose(engine.render(video[0], motion), whole, atol=1e-6)


def test_bf16_is_near_fp32() -> None:
    exact, networks = session(**REGIONS)
    rounded = TorchSession(
        networks["generator"],
        networks["keypoint_detector"],
        avd=networks["avd"],
        size_px=SIZE,
        device="cpu",
        precision="bf16",
    )
    video = frames(3)
    made, wanted = (engine.render(video[0], exact.keypoints(video)) for engine in (rounded, exact))
    assert made.dtype == np.float32
    assert 0 < np.abs(made - wanted).mean() < 0.02
    assert rounded.disentangle(video[0], rounded.keypoints(video)).value.dtype == np.float32


@pytest.mark.parametrize("preset", ["fomm", "articulated", "dcf", "jam", "cbam-mso"])
def test_folded_networks_move_pictures_the_same_and_leave_the_given_ones_alone(preset: str) -> None:
    networks: dict[str, Any] = {name: each.eval() for name, each in networks_of(debug_of(preset)).items()}
    before = {name: {key: value.clone() for key, value in each.state_dict().items()} for name, each in networks.items()}
    given = (networks["generator"], networks["keypoint_detector"])
    plain, quick = (TorchSession(*given, size_px=SIZE, device="cpu", fold=fold) for fold in (False, True))
    video = frames(4)
    for made, wanted in zip(quick.keypoints(video), plain.keypoints(video), strict=True):
        if wanted is not None:
            np.testing.assert_allclose(made, wanted, atol=1e-4)
    motion = plain.keypoints(video)
    np.testing.assert_allclose(quick.render(video[0], motion), plain.render(video[0], motion), atol=1e-4)
    assert (plain.folded, quick.folded) == (False, True)
    for name, network in networks.items():
        assert network.state_dict().keys() == before[name].keys()
        assert all(torch.equal(value, before[name][key]) for key, value in network.state_dict().items())


def test_bytes_and_floats_are_the_same_frames() -> None:
    engine, _ = session()
    video = frames(2)
    np.testing.assert_array_equal(engine.keypoints(video).value, engine.keypoints(video.astype(np.float32) / 255).value)


def test_frames_of_another_size_are_refused() -> None:
    engine, _ = session()
    with pytest.raises(ShapeError, match=r"frames must be \(N, 32, 32, 3\); got \(2, 16, 16, 3\)"):
        engine.keypoints(np.zeros((2, 16, 16, 3), dtype=np.uint8))
    with pytest.raises(ShapeError):
        engine.render(np.zeros((16, 16, 3), dtype=np.uint8), Motion(np.zeros((1, 3, 2)), np.zeros((1, 3, 2, 2))))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(EnvironmentProblem, match="device must be one that this machine has; got cuda"):
        TorchSession(*(session()[1][name] for name in ("generator", "keypoint_detector")), size_px=SIZE, device="cuda")


def test_a_checkpoint_gives_its_averaged_weights(tmp_path: Path) -> None:
    engine, networks = session()
    average = {
        f"{name}.{key}": value * 0.5 for name, net in networks.items() for key, value in net.state_dict().items()
    }
    info = CheckpointInfo(
        step=3, images_seen=24, preset="fomm", model=debug_config(), train=MotionTrainConfig(), sha256=""
    )
    write_checkpoint(tmp_path, info, tensors_of(networks, average), None)
    loaded, read = from_checkpoint(tmp_path, device="cpu")
    assert (read.step, loaded.size_px) == (3, SIZE)
    weight = loaded.generator.final.weight
    torch.testing.assert_close(weight, engine.generator.final.weight * 0.5)
    assert (loaded.has_avd, loaded.background) == (False, None)
    with pytest.raises(CheckpointError):
        from_checkpoint(tmp_path / "missing")


def test_a_checkpoint_of_regions_gives_all_its_networks(tmp_path: Path) -> None:
    config = debug_config(**REGIONS, background="affine", discriminator=False)
    networks = build(config)
    train = MotionTrainConfig(avd=AvdConfig(max_steps=5))
    info = CheckpointInfo(step=3, images_seen=24, preset="articulated", model=config, train=train, sha256="")
    write_checkpoint(tmp_path, info, tensors_of(networks), None)
    loaded, _ = from_checkpoint(tmp_path, device="cpu")
    assert set(loaded.networks) == set(networks)
    assert loaded.has_avd
    assert not any(network.training for network in loaded.networks.values())


def test_avd_networks_that_no_second_stage_has_trained_are_left_out(tmp_path: Path) -> None:
    config = debug_config(**REGIONS, discriminator=False)
    networks = build(config)
    info = CheckpointInfo(
        step=3, images_seen=24, preset="articulated", model=config, train=MotionTrainConfig(), sha256=""
    )
    for name, metrics, trained in (("own", {}, False), ("imported", {"imported/epoch": 99.0}, True)):
        (tmp_path / name).mkdir()
        write_checkpoint(tmp_path / name, replace(info, metrics=metrics), tensors_of(networks), None)
        assert from_checkpoint(tmp_path / name, device="cpu")[0].has_avd == trained


def version(number: int, *aliases: str) -> Version:
    return Version(name="m", version=number, run_id=None, tags={}, aliases=aliases, description="")


@pytest.mark.parametrize(
    ("versions", "wanted"),
    [
        ([version(1, "champion"), version(2, "candidate")], "models:/m@champion"),
        ([version(1, "candidate")], "models:/m@candidate"),
    ],
)
def test_the_champion_is_taken_and_the_candidate_while_there_is_none(
    versions: list[Version], wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "versions_of", lambda *_: versions)
    monkeypatch.setattr(animate, "from_version", lambda uri, store: (uri, None))
    assert animate.registered("m", None, Paths())[0] == wanted  # type: ignore[arg-type]


def test_a_version_whose_graph_is_broken_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "motion.onnx").write_bytes(b"no graph")
    monkeypatch.setattr(registry, "find", lambda *_: version(7))
    monkeypatch.setattr(registry, "resolve", lambda *_, **__: tmp_path)
    with pytest.raises(CheckpointError, match="models:/m/7 must hold a graph that ONNX Runtime can open"):
        from_version("models:/m@champion", Store(uri="sqlite:///x"))


def test_a_version_with_another_kind_of_graph_is_refused_in_whole_sentences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("given", "made")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["given"], ["made"])], "g", port[:1], port[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "motion.onnx")
    monkeypatch.setattr(registry, "find", lambda *_: version(7))
    monkeypatch.setattr(registry, "resolve", lambda *_, **__: tmp_path)
    rule = r"must have an input called part; got \['given'\]. Register the model again\.$"
    with pytest.raises(CheckpointError, match=rule):
        from_version("models:/m@champion", Store(uri="sqlite:///x"))


@pytest.mark.parametrize(
    ("got", "told"),
    [
        ("it is cut off. Write it again.", "it is cut off. Write it again."),
        ("no sentence", "no sentence."),
        ("..", "..."),
        ("name.", "name.."),
        (7, "7."),
    ],
)
def test_a_quoted_sentence_ends_once(got: object, told: str) -> None:
    assert must("a file", "be whole", got) == f"a file must be whole; got {told}"


@pytest.mark.parametrize(("model", "checkpoint", "got"), [(None, None, "neither"), ("models:/m", Path("x"), "both")])
def test_either_a_model_or_a_checkpoint_is_named(model: str | None, checkpoint: Path | None, got: str) -> None:
    with pytest.raises(ParamsError, match=f"one of the two .*got '{got}'"):
        animate.open_engine(None, Paths(), model=model, checkpoint=checkpoint)
