"""Published settings files (``config.yaml``): which of their keys say what about the networks."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from models.errors import CheckpointError, must
from models.importers.layout import Kind
from models.importers.reading import shown

_IGNORED = (
    "dataset_params",
    "train_params",
    "train_avd_params",
    "reconstruction_params",
    "animate_params",
    "visualizer_params",
)
"""Sections about other things than the networks."""
_FRAME_SHAPES = ("frame_shape", "image_shape")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a settings file says about the networks, in our terms."""

    values: dict[str, tuple[Any, str]] = field(default_factory=dict)
    """Option -> (value, the key that says it, or that it is the published code's default)."""
    unknown: tuple[str, ...] = ()
    """Keys below ``model_params`` that nobody knows, and unknown sections."""
    ignored: tuple[str, ...] = ()
    """Sections about other things than the networks."""


@dataclass(frozen=True, slots=True)
class _Key:
    """A key below ``model_params``."""

    path: str
    option: str | None
    """Ours; None: the key must have ``wanted``, or says nothing."""
    read: Callable[[Any], Any]
    default: Any = None
    """What the published code takes where the key is left out; None: left to the shapes, or to what was published."""
    wanted: Any = None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 2**16 else None


def _number(value: Any) -> float | None:
    fits = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9
    return float(value) if fits and math.isfinite(value) and value > 0 else None


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _occlusion(value: Any) -> str | None:
    return {True: "single", False: "none"}.get(value) if isinstance(value, bool) else None


def _background(value: Any) -> str | None:
    known = {"zero": "none", "shift": "shift", "affine": "affine", "perspective": "perspective"}
    return known.get(value) if isinstance(value, str) else None


def _norm(value: Any) -> str | None:
    return {True: "multi", False: "instance"}.get(value) if isinstance(value, bool) else None


def _scales(value: Any) -> tuple[float, ...] | None:
    scales = [_number(one) for one in value] if isinstance(value, list) and 0 < len(value) <= 16 else [None]
    return None if None in scales else tuple(one for one in scales if one is not None)


def _hourglass(section: str, part: str) -> tuple[_Key, ...]:
    names = (("block_expansion", "expansion"), ("max_features", "max_features"), ("num_blocks", "blocks"))
    return tuple(_Key(f"{section}.{theirs}", f"{part}_{ours}", _whole) for theirs, ours in names)


def _detector(section: str, *, padding: int) -> tuple[_Key, ...]:
    return (
        *_hourglass(section, "detector"),
        _Key(f"{section}.temperature", "temperature", _number),
        _Key(f"{section}.scale_factor", "scale_factor", _number, default=1.0),
        _Key(f"{section}.pad", "heat_map_padding", _whole, default=padding),
    )


def _generator(motion: str) -> tuple[_Key, ...]:
    section = "generator_params"
    return (
        _Key(f"{section}.block_expansion", "generator_expansion", _whole),
        _Key(f"{section}.max_features", "generator_max_features", _whole),
        _Key(f"{section}.num_down_blocks", "generator_down_blocks", _whole),
        _Key(f"{section}.num_bottleneck_blocks", "generator_bottleneck_blocks", _whole),
        *_hourglass(f"{section}.{motion}", "motion"),
        _Key(f"{section}.{motion}.scale_factor", "scale_factor", _number, default=1.0),
    )


_FOMM = (
    _Key("common_params.num_kp", "num_keypoints", _whole),
    _Key("common_params.num_channels", None, _whole, wanted=3),
    _Key("common_params.estimate_jacobian", "estimate_jacobian", _flag),
    *_detector("kp_detector_params", padding=0),
    _Key("kp_detector_params.single_jacobian_map", "single_jacobian_map", _flag),
    *_generator("dense_motion_params"),
    _Key("generator_params.estimate_occlusion_map", "occlusion", _occlusion),
    _Key("generator_params.dense_motion_params.kp_variance", "keypoint_variance", _number, default=0.01),
    _Key("discriminator_params.kp_variance", "keypoint_variance", _number),
    _Key("discriminator_params.scales", "discriminator_scales", _scales),
    *_hourglass("discriminator_params", "discriminator"),
    _Key("discriminator_params.sn", "discriminator_norm", _norm),
    _Key("discriminator_params.use_kp", "discriminator_keypoints", _flag),
)
_ARTICULATED = (
    _Key("num_regions", "num_keypoints", _whole),
    _Key("num_channels", None, _whole, wanted=3),
    _Key("estimate_affine", None, _flag, wanted=True),
    _Key("revert_axis_swap", None, _flag, wanted=True),
    *_hourglass("bg_predictor_params", "background"),
    _Key("bg_predictor_params.bg_type", "background", _background),
    *_detector("region_predictor_params", padding=3),
    _Key("region_predictor_params.pca_based", None, _flag, default=False, wanted=True),
    _Key("region_predictor_params.fast_svd", None, _flag),
    *_generator("pixelwise_flow_predictor_params"),
    _Key("generator_params.skips", "generator_skips", _flag, default=False),
    _Key("generator_params.pixelwise_flow_predictor_params.estimate_occlusion_map", "occlusion", _occlusion),
    _Key("generator_params.pixelwise_flow_predictor_params.use_deformed_source", None, _flag, wanted=True),
    _Key("generator_params.pixelwise_flow_predictor_params.use_covar_heatmap", None, _flag, default=False, wanted=True),
    _Key("generator_params.pixelwise_flow_predictor_params.region_var", None, _number),
    _Key("avd_network_params.id_bottle_size", "avd_identity_features", _whole),
    _Key("avd_network_params.pose_bottle_size", "avd_pose_features", _whole),
)
_KEYS: dict[str, tuple[_Key, ...]] = {"fomm": _FOMM, "articulated": _ARTICULATED}


def read_settings(raw: Any, kind: Kind, *, where: str) -> Settings:
    """What a published settings file says about the networks.

    Args:
        raw: the file's content; not trusted.
        kind: of the checkpoint that it belongs to.
        where: names the file in errors.

    Raises:
        CheckpointError: it belongs to another method, or a key has a value that can't be built here; all at once.
    """
    if not isinstance(raw, Mapping) or not isinstance(raw.get("model_params"), Mapping):
        got = ", ".join(shown(key) for key in list(raw)[:4]) if isinstance(raw, Mapping) else type(raw).__name__
        raise CheckpointError(must(where, "hold model_params", got, "Give the config.yaml of the published training"))
    reader = _Reader(raw["model_params"], kind, where)
    _refuse_other_kind(raw["model_params"], kind, where)
    reader.read_frame_size(raw.get("dataset_params"))
    reader.read_keys()
    if reader.problems:
        fix = "Use the settings with which the checkpoint was trained"
        raise CheckpointError(must(where, "describe networks that can be built", "; ".join(reader.problems), fix))
    foreign = [shown(key) for key in raw if key not in (*_IGNORED, "model_params")]
    return Settings(
        values=reader.values,
        unknown=(*foreign, *reader.unknown()),
        ignored=tuple(key for key in _IGNORED if key in raw),
    )


def key_of(option: str, kind: Kind) -> str:
    """The published name of one of our options; our own where there is none."""
    return next((key.path for key in _KEYS[kind] if key.option == option), option)


def _refuse_other_kind(params: Mapping[Any, Any], kind: Kind, where: str) -> None:
    marks = {"fomm": "region_predictor_params", "articulated": "kp_detector_params"}
    if marks[kind] in params:
        other = "articulated" if kind == "fomm" else "fomm"
        raise CheckpointError(must(where, f"hold settings of --kind {kind}", f"those of --kind {other}"))


class _Reader:
    """Looks every known key up and collects what is wrong."""

    def __init__(self, params: Mapping[Any, Any], kind: Kind, where: str) -> None:
        self.params, self.kind, self.where = params, kind, where
        self.values: dict[str, tuple[Any, str]] = {}
        self.problems: list[str] = []

    def read_keys(self) -> None:
        """Every known key, given or by the published code's default."""
        for key in _KEYS[self.kind]:
            section, name = self._section(key.path)
            if section is None:
                continue  # the part is left out altogether
            given = name in section and section[name] is not None
            value = key.read(section[name]) if given else key.default
            if given and value is None:
                self.problems.append(f"{key.path}: {_short(section[name])} is no value of it")
            elif value is not None:
                self._note(key, value, key.path if given else f"the published code's default of {key.path}")

    def read_frame_size(self, data: Any) -> None:
        """The frames' size, where the data's settings name it; frames of other shapes say nothing."""
        for name in _FRAME_SHAPES:
            shape = data.get(name) if isinstance(data, Mapping) else None
            if isinstance(shape, list) and len(shape) in (2, 3) and _whole(shape[0]) and shape[0] == shape[1]:
                self.values["size_px"] = (shape[0], f"dataset_params.{name}")

    def unknown(self) -> Iterator[str]:
        """Keys that are not in the tables."""
        known = {key.path for key in _KEYS[self.kind]}
        sections = {path.rpartition(".")[0] for path in known} - {""}
        yield from _unknown(self.params, "", known, sections)

    def _section(self, path: str) -> tuple[Mapping[Any, Any] | None, str]:
        section: Any = self.params
        *parents, name = path.split(".")
        for parent in parents:
            section = section.get(parent) if isinstance(section, Mapping) else None
        return (section if isinstance(section, Mapping) else None), name

    def _note(self, key: _Key, value: Any, source: str) -> None:
        if key.wanted is not None and value != key.wanted:
            self.problems.append(f"{source} is {value} and can only be {key.wanted} here")
        elif key.option is not None and key.option in self.values and self.values[key.option][0] != value:
            before, first = self.values[key.option]
            self.problems.append(f"{source} is {value} but {first} is {before}, and they must be equal here")
        elif key.option is not None and key.option not in self.values:
            self.values[key.option] = (value, source)


def _unknown(params: Mapping[Any, Any], prefix: str, known: set[str], sections: set[str]) -> Iterator[str]:
    for key, value in params.items():
        path = f"{prefix}{key}" if isinstance(key, str) else f"{prefix}{reprlib.repr(key)}"
        if path in sections and isinstance(value, Mapping):
            yield from _unknown(value, f"{path}.", known, sections)
        elif path not in known:
            yield shown(path)


def _short(value: Any) -> str:
    return shown(reprlib.repr(value))
