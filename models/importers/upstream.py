"""This project's networks in the layout that the published code reads."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from models.errors import CheckpointError, must
from models.importers.entries import COUNTER, parameters
from models.importers.layout import LAYOUTS, Kind
from models.motion.config import MotionConfig

_KNOWN_TO_BOTH: dict[str, tuple[Any, ...]] = {
    "hourglass_attention": ("none",),
    "hourglass_residual": (False,),
    "flow_attention": ("none",),
    "occlusion": ("none", "single"),
    "generator_attention": ("none",),
    "generator_residual": (False,),
    "output_activation": ("sigmoid",),
    "discriminator_head": ("plain",),
}
"""Option -> the values that the published code knows too."""
_KNOWN: dict[str, dict[str, tuple[Any, ...]]] = {
    "fomm": {"background": ("none",), "generator_skips": (False,), "avd": (False,)},
    "articulated": {"discriminator": (False,)},
}
_BACKGROUNDS = {"none": "zero"}
_RATE = 2e-4
_AVD_RATE = 1e-3


def kind_of(config: MotionConfig) -> Kind:
    """Which of the published methods a model belongs to."""
    return "articulated" if config.motion == "articulated" else "fomm"


def foreign_options(config: MotionConfig) -> list[str]:
    """Options that the published code does not know, as ``name: value``."""
    known = {**_KNOWN_TO_BOTH, **_KNOWN[kind_of(config)]}
    foreign = [
        f"{name}: {getattr(config, name)}" for name, values in known.items() if getattr(config, name) not in values
    ]
    if any(rate != 1 for rate in config.generator_dilations):
        foreign.append(f"generator_dilations: {list(config.generator_dilations)}")
    has_discriminator = config.discriminator and kind_of(config) == "fomm"
    if has_discriminator and config.discriminator_norm == "spectral":
        foreign.append("discriminator_norm: spectral")
    return foreign


def to_published(config: MotionConfig, states: Mapping[str, Mapping[str, Tensor]], *, epoch: int = 0) -> dict[str, Any]:
    """A checkpoint as the published code writes it, with optimisers that have never stepped.

    Args:
        config: of the networks.
        states: their state dicts, in their own order.
        epoch: the last finished one.

    Raises:
        CheckpointError: the model has options that the published code does not know.
    """
    foreign = foreign_options(config)
    kind = kind_of(config)
    layout = LAYOUTS[kind]
    if foreign:
        fix = "Such a model can only be used here"
        raise CheckpointError(must("the model", f"have {layout.title}'s options only", ", ".join(foreign), fix))
    content: dict[str, Any] = {}
    for theirs, ours in layout.networks.items():
        if ours in states:
            content[theirs] = OrderedDict(
                (layout.theirs(ours, key), _plain(key, value)) for key, value in states[ours].items()
            )
    if kind == "articulated":
        content.setdefault("bg_predictor", OrderedDict())
    for name, networks in layout.optimisers.items():
        num = sum(len(parameters(states[network])) for network in networks if network in states)
        if num:
            content[name] = _fresh_adam(num, _RATE)
    if "avd" in states:
        content["optimizer_avd"] = _fresh_adam(len(parameters(states["avd"])), _AVD_RATE)
        content["epoch_avd"] = 0
    return {**content, layout.epochs[0]: epoch}


def to_settings(config: MotionConfig) -> dict[str, Any]:
    """What the published code's ``config.yaml`` says about such networks (``model_params``) and their frames."""
    model = _articulated(config) if kind_of(config) == "articulated" else _fomm(config)
    return {"dataset_params": {"frame_shape": [config.size_px, config.size_px, 3]}, "model_params": model}


def _fomm(config: MotionConfig) -> dict[str, Any]:
    made: dict[str, Any] = {
        "common_params": {
            "num_kp": config.num_keypoints,
            "num_channels": 3,
            "estimate_jacobian": config.estimate_jacobian,
        },
        "kp_detector_params": {**_detector(config), "single_jacobian_map": config.single_jacobian_map},
        "generator_params": {
            **_generator(config),
            "estimate_occlusion_map": config.occlusion != "none",
            "dense_motion_params": {**_motion(config), "kp_variance": config.keypoint_variance},
        },
    }
    if config.discriminator:
        made["discriminator_params"] = {
            "scales": list(config.discriminator_scales),
            **_widths(config, "discriminator"),
            "sn": config.discriminator_norm == "multi",
            "use_kp": config.discriminator_keypoints,
            "kp_variance": config.keypoint_variance,
        }
    return made


def _articulated(config: MotionConfig) -> dict[str, Any]:
    return {
        "num_regions": config.num_keypoints,
        "num_channels": 3,
        "estimate_affine": True,
        "revert_axis_swap": True,
        "bg_predictor_params": {
            **_widths(config, "background"),
            "bg_type": _BACKGROUNDS.get(config.background, config.background),
        },
        "region_predictor_params": {**_detector(config), "pca_based": True, "fast_svd": False},
        "generator_params": {
            **_generator(config),
            "skips": config.generator_skips,
            "pixelwise_flow_predictor_params": {
                **_motion(config),
                "use_deformed_source": True,
                "use_covar_heatmap": True,
                "estimate_occlusion_map": config.occlusion != "none",
            },
        },
        "avd_network_params": {
            "id_bottle_size": config.avd_identity_features,
            "pose_bottle_size": config.avd_pose_features,
        },
    }


def _widths(config: MotionConfig, part: str) -> dict[str, int]:
    return {
        "block_expansion": config.features(getattr(config, f"{part}_expansion")),
        "max_features": config.features(getattr(config, f"{part}_max_features")),
        "num_blocks": getattr(config, f"{part}_blocks"),
    }


def _detector(config: MotionConfig) -> dict[str, Any]:
    beside = {"temperature": config.temperature, "scale_factor": config.scale, "pad": config.heat_map_padding}
    return {**_widths(config, "detector"), **beside}


def _motion(config: MotionConfig) -> dict[str, Any]:
    return {**_widths(config, "motion"), "scale_factor": config.scale}


def _generator(config: MotionConfig) -> dict[str, Any]:
    return {
        "block_expansion": config.features(config.generator_expansion),
        "max_features": config.features(config.generator_max_features),
        "num_down_blocks": config.generator_down_blocks,
        "num_bottleneck_blocks": config.generator_bottleneck_blocks,
    }


def _plain(name: str, value: Tensor) -> Tensor:
    tensor = value.detach().cpu().clone()
    return torch.zeros_like(tensor) if name.endswith(COUNTER) else tensor.float().contiguous()


def _fresh_adam(num: int, rate: float) -> dict[str, Any]:
    """The state of an Adam over ``num`` parameters that has never stepped."""
    stand_ins = [torch.nn.Parameter(torch.zeros(())) for _ in range(num)]
    return torch.optim.Adam(stand_ins, lr=rate, betas=(0.5, 0.999)).state_dict()
