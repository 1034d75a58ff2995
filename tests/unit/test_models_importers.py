"""Published checkpoints into our networks: what fits, what is found out, what is refused."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from published_kit import AA, SIZED, published, write
from torch import nn

from models.catalog import MODELS
from models.errors import CheckpointError
from models.importers import articulated, fomm
from models.importers.inspect import inspect
from models.importers.layout import Kind
from models.importers.options import Assumptions, merge
from models.importers.settings import Settings, read_settings
from models.importers.shapes import infer
from models.importers.upstream import to_settings
from models.motion.config import MotionConfig
from models.motion.networks import build, debug_config


@pytest.fixture(scope="module")
def nets() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return build(debug_config())


@pytest.fixture
def file(nets: dict[str, nn.Module], tmp_path: Path) -> Path:
    return write(tmp_path / "00000012-checkpoint.pth.tar", published(nets))


# ---- into networks that are there


def test_all_entries_arrive(nets: dict[str, nn.Module], tmp_path: Path) -> None:
    path = write(tmp_path / "x.pth.tar", published(nets, optimizer_generator={}))
    torch.manual_seed(1)
    ours = build(debug_config())
    report = fomm.load_into(ours, path)
    assert report.ignored == ("epoch", "optimizer_generator")
    assert report.epoch == 12
    for name, network in ours.items():
        given = nets[name].state_dict()
        assert report.loaded[name] == sum(not key.endswith("num_batches_tracked") for key in given)
        for key, value in network.state_dict().items():
            assert torch.equal(value, given[key]), key


@pytest.mark.parametrize("counted", ["advanced", "absent"])
def test_counters_of_batches_do_not_matter(nets: dict[str, nn.Module], tmp_path: Path, counted: str) -> None:
    content = published(nets)
    for state in (value for value in content.values() if isinstance(value, dict)):
        for key in [key for key in state if key.endswith("num_batches_tracked")]:
            if counted == "absent":
                del state[key]
            else:
                state[key] = torch.tensor(1_000)
    path = write(tmp_path / "x.pth.tar", content)
    fresh = build(debug_config())
    fomm.load_into(fresh, path)
    assert fresh["generator"].state_dict()["first.norm.num_batches_tracked"].item() == 0
    assert inspect(path, "fomm", SIZED).states["generator"]["first.norm.num_batches_tracked"].item() == 0


def test_networks_may_be_left_out(nets: dict[str, nn.Module], tmp_path: Path) -> None:
    content = published(nets)
    del content["discriminator"]
    path = write(tmp_path / "x.pth.tar", content)
    wanted = {name: nets[name] for name in ("generator", "keypoint_detector")}
    assert set(fomm.load_into(wanted, path).loaded) == set(wanted)
    with pytest.raises(CheckpointError, match="must hold the discriminator"):
        fomm.load_into(nets, path)
    found = inspect(path, "fomm", SIZED)
    assert not found.config.discriminator
    assert any("no discriminator" in note for note in found.report.notes)


def test_another_configuration_is_named(file: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"generator: .* of another shape .*\(16, 8, 3, 3\) instead of \(8, 8,"):
        fomm.load_into(build(debug_config(motion_max_features=8)), file)
    with pytest.raises(CheckpointError, match=r"kp_detector: 2 unexpected \(jacobian.weight, jacobian.bias\), 2\d"):
        fomm.load_into(build(debug_config(estimate_jacobian=False)), file)
    with pytest.raises(CheckpointError, match=r"discriminator: 3 missing .*conv\.weight.*9 unexpected"):
        fomm.load_into(build(debug_config(discriminator_norm="instance")), file)
    regions = write(tmp_path / "aa.pth", published(build(debug_config(**AA)), "articulated"))
    with pytest.raises(CheckpointError, match=r"region_predictor: .* of another shape \(regions.weight"):
        articulated.load_into(build(debug_config(**AA, num_keypoints=5)), regions)
    assert set(articulated.load_into(build(debug_config(**AA)), regions).loaded) == set(build(debug_config(**AA)))


# ---- the configuration that fits

FOMM_VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"estimate_jacobian": False},
    {"single_jacobian_map": True},
    {"occlusion": "none"},
    {"num_keypoints": 1},
    {"num_keypoints": 50, "discriminator_keypoints": True},
    {"discriminator_norm": "instance"},
    {"discriminator_norm": "spectral"},
    {"discriminator_scales": (1.0, 0.5)},
    {"discriminator": False},
    {"generator_down_blocks": 3, "generator_bottleneck_blocks": 0, "generator_max_features": 8},
    {"generator_down_blocks": 0},
    {"scale_factor": 1.0},
    {"scale_factor": 0.25},
    {"detector_expansion": 6, "detector_max_features": 9, "detector_blocks": 3},
    {"motion_expansion": 12, "motion_max_features": 8, "motion_blocks": 4},
    {"discriminator_expansion": 8, "discriminator_max_features": 6},
)
AA_VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"background": "none"},
    {"background": "shift", "background_blocks": 1},
    {"background": "perspective", "background_expansion": 9, "background_max_features": 10, "background_blocks": 3},
    {"avd": False},
    {"avd_identity_features": 3, "avd_pose_features": 5, "num_keypoints": 2},
)


@pytest.mark.parametrize("options", FOMM_VARIANTS, ids=str)
def test_the_configuration_is_found_in_the_shapes(options: dict[str, Any], tmp_path: Path) -> None:
    _found(debug_config(**options), "fomm", tmp_path)


@pytest.mark.parametrize("options", AA_VARIANTS, ids=str)
def test_and_in_those_of_articulated_animation(options: dict[str, Any], tmp_path: Path) -> None:
    _found(debug_config(**{**AA, **options}), "articulated", tmp_path)


def _found(config: MotionConfig, kind: Kind, folder: Path) -> None:
    theirs = build(config)
    found = inspect(write(folder / "x.pth", published(theirs, kind)), kind, SIZED)
    made = found.networks()
    assert set(made) == set(theirs)
    for name, network in made.items():
        for key, value in theirs[name].state_dict().items():
            assert torch.equal(network.state_dict()[key], value), f"{name}.{key}"
    limits = ("_max_features", "_expansion")  # a wider limit that no stage reaches is the same network
    told = {row.option for row in found.report.options if row.source == "the tensors' shapes"}
    for name in told - {"scale_factor"}:
        if not name.endswith(limits):
            assert getattr(found.config, name) == getattr(config, name), name
    assert found.config.scale == config.scale


@pytest.mark.parametrize("kind", ["fomm", "articulated"])
@pytest.mark.parametrize("options", [{}, {"size_px": 512}], ids=str)
def test_the_published_sizes(kind: Kind, options: dict[str, Any]) -> None:
    config = MotionConfig(**{**MODELS[kind].model, **options})
    with torch.device("meta"):
        states = {name: network.state_dict() for name, network in build(config).items()}
    fitted = infer(states, articulated=kind == "articulated", where="x")
    rows = merge(fitted, Settings(), Assumptions(), kind=kind, where="x")
    said = {row.option: row.value for row in rows}
    assert {name: getattr(config, name) for name in said if name != "scale_factor"} == {
        name: value for name, value in said.items() if name != "scale_factor"
    }
    assert said["scale_factor"] == config.scale


def test_sizes_follow_what_is_said(file: Path) -> None:
    assert inspect(file, "fomm").config.size_px == 128
    assert inspect(file, "fomm").config.scale_factor is None
    told = inspect(file, "fomm", Assumptions(size_px=32, align_corners=True))
    assert (told.config.size_px, told.config.scale_factor, told.config.align_corners) == (32, 0.5, True)
    assert any("found at 16 px" in note for note in told.report.notes)
    with pytest.raises(CheckpointError, match="be one that can be built here; got size_px must be a multiple of 4"):
        inspect(file, "fomm", Assumptions(size_px=33))


@pytest.mark.parametrize(
    ("network", "entry", "shape", "says"),
    [
        ("kp_detector", "kp.weight", (4, 7, 7, 7), "find the 3 keypoints that the generator takes; got 4"),
        ("kp_detector", "jacobian.weight", (8, 7, 7, 7), "hold 4 or 12 maps of Jacobians; got 8"),
        ("kp_detector", "down.weight", (3, 1, 13, 13), r"\(1/2\); got 1/4"),
        ("generator", "dense_motion_network.down.weight", (3, 1, 6, 6), "whole factor; got a filter of 6 px"),
        ("generator", "dense_motion_network.hourglass.encoder.down_blocks.0.conv.weight", (8, 4, 3, 3), "use_source"),
        ("generator", "dense_motion_network.mask.weight", None, "hold generator's dense_motion_network.mask.weight"),
        ("generator", "final.bias", (4,), r"generator: 1 of another shape \(final.bias \(4,\) instead of \(3,\)\)"),
        ("generator", "final.bias", None, r"generator: 1 missing \(final.bias\)"),
        ("generator", "extra.weight", (2,), r"generator: 1 unexpected \(extra.weight\)"),
        ("discriminator", "discs.1.down_blocks.0.conv.weight_orig", (8, 5, 4, 4), "see 3 channels, or 6"),
    ],
)
def test_contradictions_are_refused(
    nets: dict[str, nn.Module], tmp_path: Path, network: str, entry: str, shape: tuple[int, ...] | None, says: str
) -> None:
    content = published(nets)
    if shape is None:
        del content[network][entry]
    else:
        content[network][entry] = torch.zeros(shape)
    with pytest.raises(CheckpointError, match=says):
        inspect(write(tmp_path / "x.pth.tar", content), "fomm", SIZED)


def test_axes_that_are_regressed_are_refused(tmp_path: Path) -> None:
    content = published(build(debug_config(**AA)), "articulated")
    content["region_predictor"]["jacobian.weight"] = torch.zeros(4, 7, 7, 7)
    with pytest.raises(CheckpointError, match=r"covariance \(pca_based: true\)"):
        inspect(write(tmp_path / "x.pth", content), "articulated", SIZED)


# ---- settings


def test_settings_say_what_the_shapes_cannot(file: Path) -> None:
    raw = to_settings(debug_config(temperature=0.2, heat_map_padding=2, keypoint_variance=0.02))
    raw["train_params"] = {"lr": 1}
    raw["model_params"]["kp_detector_params"]["depth"] = 3
    raw["secret"] = raw  # it may hold itself
    report = (found := inspect(file, "fomm", Assumptions(settings=raw))).report
    config = found.config
    assert (config.size_px, config.temperature, config.heat_map_padding, config.keypoint_variance) == (32, 0.2, 2, 0.02)
    assert report.unknown_settings == ("secret", "kp_detector_params.depth")
    assert report.ignored_settings == ("dataset_params", "train_params")
    sources = {row.option: row.source for row in report.options}
    assert sources["temperature"] == "kp_detector_params.temperature"
    assert sources["size_px"] == "dataset_params.frame_shape"
    assert sources["num_keypoints"] == "the tensors' shapes"
    assert any("temperature" in line and "0.2" in line for line in report.lines())


@pytest.mark.parametrize(
    ("section", "key", "value", "says"),
    [
        ("common_params", "num_kp", 15, "common_params.num_kp is 15 where the tensors say 3"),
        ("kp_detector_params", "block_expansion", 8, "is 8 where the tensors say 4"),
        ("kp_detector_params", "max_features", 3, "kp_detector_params.max_features is 3 where the tensors say 16"),
        ("discriminator_params", "sn", False, "discriminator_params.sn is instance where the tensors say multi"),
        ("kp_detector_params", "temperature", "hot", "kp_detector_params.temperature: 'hot' is no value of it"),
        ("kp_detector_params", "temperature", float("nan"), "nan is no value"),
        ("common_params", "num_channels", 1, "common_params.num_channels is 1 and can only be 3 here"),
        (
            "kp_detector_params",
            "scale_factor",
            None,
            "default of kp_detector_params.scale_factor is 1.0, and",
        ),
        ("discriminator_params", "kp_variance", 0.5, "kp_variance is 0.5 but .*kp_variance is 0.01"),
        ("discriminator_params", "scales", [1, "x"], "is no value of it"),
    ],
)
def test_settings_of_another_training_are_refused(file: Path, section: str, key: str, value: Any, says: str) -> None:
    raw = to_settings(debug_config())
    raw["model_params"][section][key] = value
    with pytest.raises(CheckpointError, match=says):
        inspect(file, "fomm", Assumptions(settings=raw))


@pytest.mark.parametrize("raw", [{}, [], "text", 3, {"model_params": []}, {"num_kp": 10}])
def test_what_is_no_settings_file_is_refused(raw: Any) -> None:
    with pytest.raises(CheckpointError, match="must hold model_params"):
        read_settings(raw, "fomm", where="x.yaml")


def test_settings_of_articulated_animation(tmp_path: Path) -> None:
    path = write(tmp_path / "x.pth", published(build(debug_config(**{**AA, "avd": False})), "articulated"))
    raw = to_settings(debug_config(**{**AA, "generator_skips": False, "heat_map_padding": 0}))
    config = inspect(path, "articulated", Assumptions(settings=raw)).config
    assert (config.generator_skips, config.heat_map_padding, config.avd) == (False, 0, False)
    del raw["model_params"]["region_predictor_params"]["pad"]
    assert inspect(path, "articulated", Assumptions(settings=raw)).config.heat_map_padding == 3
    del raw["model_params"]["region_predictor_params"]["pca_based"]
    with pytest.raises(CheckpointError, match="default of region_predictor_params.pca_based is False and can only be"):
        inspect(path, "articulated", Assumptions(settings=raw))
    with pytest.raises(CheckpointError, match="hold settings of --kind articulated; got those of --kind fomm"):
        inspect(path, "articulated", Assumptions(settings=to_settings(debug_config())))


def test_settings_may_describe_networks_that_the_file_lacks(nets: dict[str, nn.Module], tmp_path: Path) -> None:
    content = published(nets)
    del content["discriminator"]
    raw = to_settings(debug_config(discriminator_keypoints=True))
    found = inspect(write(tmp_path / "x.pth.tar", content), "fomm", Assumptions(settings=raw))
    assert not found.config.discriminator
    regions = published(build(debug_config(**AA)), "articulated", bg_predictor={})
    raw = to_settings(debug_config(**AA))
    found = inspect(write(tmp_path / "x.pth", regions), "articulated", Assumptions(settings=raw))
    assert found.config.background == "none"
    assert any("lacks the background predictor" in note for note in found.report.notes)


# ---- files that are something else


def test_both_formats_of_torch_are_read(nets: dict[str, nn.Module], tmp_path: Path) -> None:
    old = write(tmp_path / "old.pth.tar", published(nets), _use_new_zipfile_serialization=False)
    new = write(tmp_path / "new.pth.tar", published(nets))
    states = [inspect(path, "fomm", SIZED).tensors() for path in (old, new)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])


@pytest.mark.parametrize("is_new", [True, False])
def test_a_file_that_is_cut_off_anywhere_is_refused(nets: dict[str, nn.Module], tmp_path: Path, is_new: bool) -> None:
    small = {name: nets[name] for name in ("generator", "keypoint_detector")}
    whole = write(tmp_path / "x.pth.tar", published(small), _use_new_zipfile_serialization=is_new).read_bytes()
    cut = tmp_path / "cut.pth.tar"
    for share in (0.001, 0.01, 0.03, 0.1, 0.3, 0.5, 0.9, 0.99):
        cut.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(CheckpointError, match=r"cut\.pth\.tar must be whole; got a file that is cut off"):
            inspect(cut, "fomm")


def _zip(name: str) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr(name, b"x")
    return held.getvalue()


def _bomb() -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", bytes(2**23))
    return held.getvalue()


def _tar() -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("x"))
    return held.getvalue()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "must hold a checkpoint; got an empty file"),
        (b"\n <!DOCTYPE html><html>", "got a web page. The server answered with a page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "got a pointer of Git LFS. Run git lfs pull"),
        (_tar(), "got an archive. A published .pth.tar is no archive"),
        (b"\x1f\x8b\x08" + bytes(50), "got an archive"),
        (_zip("checkpoint.pth"), "got another zip archive. Unpack it"),
        (_bomb(), "bytes that unpack to"),
        (b'\x02\x00\x00\x00\x00\x00\x00\x00{"' + bytes(50), "got a safetensors file"),
        (b"not a checkpoint", "must be a checkpoint written by torch.save; got something else"),
        (b"\x80\x02garbage", "must be a checkpoint written by torch.save; got something else"),
    ],
    ids=lambda value: value[:20] if isinstance(value, bytes) else "",
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "x.pth.tar"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=says):
        inspect(path, "fomm")


def test_files_that_are_none_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match="must be a file; got no such file"):
        inspect(tmp_path / "absent.pth.tar", "fomm")
    (tmp_path / "archive" / "data").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="must be a file; got a folder. Name the file"):
        inspect(tmp_path / "archive", "fomm")
    (tmp_path / "archive" / "data.pkl").touch()
    with pytest.raises(CheckpointError, match="An unpacked checkpoint can't be read: .pth.tar is no archive"):
        inspect(tmp_path / "archive", "fomm")
    monkeypatch.setattr("models.importers.reading.MAX_BYTES", 10)
    (tmp_path / "big.pth").write_bytes(bytes(11))
    with pytest.raises(CheckpointError, match="must be at most"):
        inspect(tmp_path / "big.pth", "fomm")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            {"generator": {"a": 1}, "region_predictor": {"a": 1}},
            "got a checkpoint of Articulated Animation, without kp",
        ),
        ({"inpainting_network": {}, "kp_detector": {}}, "got a checkpoint of Thin-Plate Spline Motion Model"),
        ({"generator": {"appearance_encoder.x": 1}, "kp_detector": {}}, "got a checkpoint of Monkey-Net"),
        ({"g_ema": {}}, "got a checkpoint of StyleGAN2"),
        ({"first.conv.weight": 1, "first.conv.bias": 1}, "got the entries of a single network"),
        ({}, "got an empty dict"),
        ({"a\x1b[31m": 1, 3: 1}, r"got a dict of a\?\[31m, 3, without generator and kp_detector"),
        (torch.zeros(2), "must hold a dict; got Tensor"),
    ],
    ids=lambda value: "",
)
def test_checkpoints_of_other_methods_are_named(tmp_path: Path, content: Any, says: str) -> None:
    with pytest.raises(CheckpointError, match=says):
        inspect(write(tmp_path / "x.pth.tar", content), "fomm")


def test_the_other_kind_is_named(file: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"got a checkpoint of First Order Motion Model, .*Give --kind fomm\."):
        inspect(file, "articulated")
    regions = write(tmp_path / "x.pth", published(build(debug_config(**AA)), "articulated"))
    with pytest.raises(CheckpointError, match=r"got a checkpoint of Articulated Animation, .*--kind articulated\."):
        inspect(regions, "fomm")


class _Harmful:
    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (os.mkdir, (str(self.place),))


@pytest.mark.parametrize("is_new", [True, False])
def test_no_code_in_a_file_is_ever_run(tmp_path: Path, is_new: bool) -> None:
    harm = tmp_path / "harm"
    path = write(tmp_path / "x.pth.tar", {"generator": _Harmful(harm)}, _use_new_zipfile_serialization=is_new)
    with pytest.raises(CheckpointError, match=r"got pickled code, posix\.mkdir\. Pickled code is never run"):
        inspect(path, "fomm")
    assert not harm.exists()


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (torch.tensor([1.0, float("nan"), 0.0]), "final.bias must be a tensor of finite numbers; got not finite"),
        (torch.tensor([1.0, float("inf"), 0.0]), "got not finite"),
        (torch.tensor([1, 2, 3]), "got of type torch.int64"),
        (torch.zeros(3, dtype=torch.complex64), "got no dense tensor"),
        (torch.eye(3).to_sparse(), "got no dense tensor"),
        (torch.zeros(1).expand(2**20), "holds fewer numbers"),
        (torch.zeros(1).expand(2**40), "hold at most 4 GiB of numbers"),
        ([1.0, 2.0, 3.0], "got list and no tensor"),
    ],
    ids=lambda value: "",
)
def test_unsound_tensors_are_refused(nets: dict[str, nn.Module], tmp_path: Path, value: Any, says: str) -> None:
    content = published(nets)
    content["generator"]["final.bias"] = value
    with pytest.raises(CheckpointError, match=says):
        inspect(write(tmp_path / "x.pth.tar", content), "fomm", SIZED)


def test_what_data_parallel_and_half_precision_leave_is_undone(nets: dict[str, nn.Module], tmp_path: Path) -> None:
    content = published(nets)
    content["generator"] = {f"module.{key}": value for key, value in content["generator"].items()}
    content["kp_detector"] = {
        key: value.half() if value.is_floating_point() else value for key, value in content["kp_detector"].items()
    }
    found = inspect(write(tmp_path / "x.pth.tar", content), "fomm", SIZED)
    assert torch.equal(found.states["generator"]["final.bias"], nets["generator"].state_dict()["final.bias"])
    assert found.states["keypoint_detector"]["kp.bias"].dtype == torch.float32
    assert any("`module.` is taken off" in note for note in found.report.notes)
    assert any("become float32" in note for note in found.report.notes)
