"""The catalogue of models: plain dicts from a preset's name to what builds and trains it, and to published settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.families import Family


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A preset. Networks are built by ``build`` (``module:function``), trained by ``recipe`` (likewise).

    Both are names, not imports: reading the catalogue costs nothing and needs no torch.
    """

    family: Family
    build: str
    recipe: str
    model: Mapping[str, Any] = field(default_factory=dict)
    """Options of the networks' configuration that differ from its defaults."""
    train: Mapping[str, Any] = field(default_factory=dict)
    """Options of the training's configuration that differ from its defaults."""
    base: str | None = None
    """The preset that a paper's variant improves: published settings lie over the base's options, and under its own."""
    summary: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedSettings:
    """With what a model was published for a data set; laid over the preset, under the profile."""

    model: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)


_MOTION: dict[str, Any] = {
    "family": "motion",
    "build": "models.motion.networks:build",
    "recipe": "training.recipes.motion:build",
}
_STYLE: dict[str, Any] = {
    "family": "style",
    "build": "models.style.networks:build",
    "recipe": "training.recipes.style:build",
}
_ARTICULATED: dict[str, Any] = {
    "motion": "articulated",
    "background": "affine",
    "heat_map_padding": 3,
    "generator_skips": True,
    "discriminator": False,
    "avd": True,
}
_JAM: dict[str, Any] = {
    **_ARTICULATED,
    "hourglass_attention": "scse",
    "hourglass_residual": True,
    "generator_attention": "scse",
    "generator_residual": True,
    "generator_dilations": (1, 2, 4, 1, 2, 4),
}
MODELS: dict[str, ModelSpec] = {
    "fomm": ModelSpec(
        **_MOTION,
        summary="First Order Motion Model (NeurIPS 2019), as published for VoxCeleb at 256 px",
    ),
    "articulated": ModelSpec(
        **_MOTION,
        model=_ARTICULATED,
        summary="Articulated Animation (CVPR 2021): regions with axes, background motion, AVD",
    ),
    "dcf": ModelSpec(
        **_MOTION,
        model={
            "hourglass_attention": "channel",
            "output_activation": "tanh",
            "discriminator_norm": "multi",
            "discriminator_head": "dual-channel-fusion",
        },
        train={"losses": {"gan": "hinge"}},
        base="fomm",
        summary="Dual-Channel Fusion: FOMM with channel attention, tanh, multi-norm, fusion head, hinge loss",
    ),
    "jam": ModelSpec(
        **_MOTION,
        model=_JAM,
        base="articulated",
        summary="Joint Attention: AA with scSE decoders, residual U-Nets, a dilated scSE generator, at AA's widths",
    ),
    "jam-slim": ModelSpec(
        **_MOTION,
        model={**_JAM, "width": 0.625},
        base="articulated",
        summary="Joint Attention at 5/8 of the widths, the most that stays under AA's parameters",
    ),
    "cbam-mso": ModelSpec(
        **_MOTION,
        model={"flow_attention": "max-cbam", "occlusion": "multi-scale"},
        base="fomm",
        summary="CBAM and Multi-Scale Occlusion: FOMM with attention on the flow features, three occlusion maps",
    ),
}


_LWCOMICGAN: dict[str, Any] = {
    "lr_generator": 8e-5,
    "lr_discriminator": 16e-5,
    "batch_size": 6,
    "max_epochs": 101,
    "losses": {"warm_up_epochs": 5},
}
"""Rates, batch and epochs are AnimeGAN's, for the paper prints none; its losses' weights are the defaults."""
_LSGAN_ALONE: dict[str, Any] = {"gan": "lsgan", "adversarial": 1.0, "texture": 0.0, "colour": 0.0}
_HALVED = {"milestone_epochs": (125, 150, 175), "gamma": 0.5}
"""In place of a straight line from epoch 100 to 200."""
MODELS |= {
    "lwcomicgan": ModelSpec(
        **_STYLE,
        train=_LWCOMICGAN,
        summary="LWComicGAN: photos into ink and comics by a light generator with LIN and a Wasserstein critic",
    ),
    "lwcomicgan-tiny": ModelSpec(
        **_STYLE,
        model={"width": 24},
        train=_LWCOMICGAN,
        summary="LWComicGAN at 3/8 of the widths: 0.4 M parameters, for small devices",
    ),
    "animegan": ModelSpec(
        **_STYLE,
        model={"layout": "animegan", "num_blocks": 8, "norm": "instance", "critic_instance": True},
        train={
            "lr_generator": 8e-5,
            "lr_discriminator": 16e-5,
            "batch_size": 6,
            "max_epochs": 101,
            "losses": {
                "gan": "lsgan",
                "adversarial": 300.0,
                "content": 1.5,
                "texture": 3.0,
                "colour": 10.0,
                "gray_negative": 1.0,
                "smooth_negative": 0.1,
                "warm_up_epochs": 5,
            },
        },
        summary="AnimeGAN (ISICA 2019): least squares, gray and edge-smoothed negatives",
    ),
    "animeganv2": ModelSpec(
        **_STYLE,
        model={"layout": "animeganv2", "norm": "layer"},
        train={
            "lr_generator": 2e-5,
            "lr_discriminator": 4e-5,
            "batch_size": 12,
            "max_epochs": 101,
            "losses": {
                "gan": "lsgan",
                "adversarial": 300.0,
                "content": 1.5,
                "texture": 2.5,
                "colour": 15.0,
                "total_variation": 2.0,
                "real": 1.2,
                "made_negative": 1.2,
                "gray_negative": 1.2,
                "smooth_negative": 0.8,
                "warm_up_epochs": 10,
                "lr_warm_up": 2e-4,
            },
        },
        summary="AnimeGANv2, as published for the style Hayao: layer normalisation, half of AnimeGAN's parameters",
    ),
    "cartoongan": ModelSpec(
        **_STYLE,
        model={
            "layout": "cartoongan",
            "num_blocks": 8,
            "norm": "instance",
            "critic_spectral": False,
            "critic_instance": True,
        },
        train={
            "lr_generator": 1e-5,
            "lr_discriminator": 1e-5,
            "batch_size": 8,
            "max_epochs": 200,
            **_HALVED,
            "losses": {
                **_LSGAN_ALONE,
                "content": 10.0,
                "smooth_negative": 1.0,
                "warm_up_epochs": 20,
                "lr_warm_up": 2e-4,
            },
        },
        summary="CartoonGAN (CVPR 2018): content alone beside the critic, edge-smoothed negatives",
    ),
    "cyclegan": ModelSpec(
        **_STYLE,
        model={
            "layout": "cyclegan",
            "num_blocks": 9,
            "norm": "instance",
            "critic_spectral": False,
            "critic_instance": True,
        },
        train={
            "batch_size": 1,
            "max_epochs": 200,
            **_HALVED,
            "losses": {
                **_LSGAN_ALONE,
                "content": 0.0,
                "cycle": 10.0,
                "identity": 5.0,
                "real": 0.5,
                "made_negative": 0.5,
            },
        },
        summary="CycleGAN (ICCV 2017): there and back between photos and style pictures",
    ),
}
MODELS |= {
    "stylegan2": ModelSpec(
        family="dualstyle",
        build="training.recipes.face_gan:build_networks",
        recipe="training.recipes.face_gan:build",
        train={"lr_generator": 2e-3, "lr_discriminator": 2e-3, "adam_betas": (0.0, 0.99), "ema_decay": 0.998},
        summary="StyleGAN2 (CVPR 2020) with adaptive augmentation: faces out of nothing",
    ),
    "psp": ModelSpec(
        family="dualstyle",
        build="models.style.face_networks:build_encoder",
        recipe="training.recipes.face_encoder:build",
        train={"lr_generator": 1e-4, "batch_size": 8, "adam_betas": (0.9, 0.999)},
        summary="pSp (CVPR 2021): the style codes of a face, for a trained StyleGAN2",
    ),
    "dualstylegan": ModelSpec(
        family="dualstyle",
        build="training.recipes.dualstyle:build_networks",
        recipe="training.recipes.dualstyle:build",
        train={"lr_generator": 2e-3, "lr_discriminator": 2e-3, "adam_betas": (0.0, 0.99), "ema_decay": 0.998},
        summary="DualStyleGAN (CVPR 2022): a face in the structure and the colours of a cartoon",
    ),
}


def presets_of(family: Family) -> list[str]:
    """The presets of one family, in the catalogue's order."""
    return [name for name, spec in MODELS.items() if spec.family == family]


def settings_kind(spec: ModelSpec) -> str:
    """By what published settings tell presets apart: the kind of motion, the generator's layout, the preset itself."""
    if spec.family == "motion":
        return str(spec.model.get("motion", "first-order"))
    if spec.family == "dualstyle":
        return next(name for name, one in MODELS.items() if one is spec)
    return str(spec.model.get("layout", "lwcomicgan"))


def own_options(preset: str) -> PublishedSettings:
    """What a paper's variant changes of its base; nothing for a base itself."""
    spec = MODELS[preset]
    if spec.base is None:
        return PublishedSettings()
    base = MODELS[spec.base].model
    model = {key: value for key, value in spec.model.items() if key not in base or base[key] != value}
    return PublishedSettings(model=model, train=spec.train)


_JITTER = {"brightness": 0.1, "contrast": 0.1, "saturation": 0.1, "hue": 0.1}
_CARTOON_JITTER = {"hue": 0.5, "resize": (0.9, 1.1)}


def _fomm(
    *, epochs: int, repeats: int, batch_size: int, model: Mapping[str, Any], train: Mapping[str, Any]
) -> PublishedSettings:
    schedule = {"max_epochs": epochs, "num_repeats": repeats, "batch_size": batch_size}
    return PublishedSettings(model=model, train={"milestone_epochs": (60, 90), **schedule, **train})


def _articulated(
    *,
    repeats: int,
    avd_repeats: int,
    model: Mapping[str, Any],
    train: Mapping[str, Any],
    avd_milestones: tuple[int, ...] = (20, 25),
) -> PublishedSettings:
    avd = {"max_epochs": 30, "milestone_epochs": avd_milestones, "num_repeats": avd_repeats}
    schedule = {"max_epochs": 100, "milestone_epochs": (60, 90), "num_repeats": repeats, "batch_size": 14, "avd": avd}
    return PublishedSettings(model=model, train={**schedule, **train})


_BY_IDENTITY = {"id_sampling": True, "augment": _JITTER}
_ADVERSARIAL = {"losses": {"gan": "lsgan"}, "milestone_epochs": ()}
_NO_PADDING = {"heat_map_padding": 0}
_SEES_KEYPOINTS = {"discriminator_norm": "instance", "discriminator_keypoints": True}

_FAST: dict[str, Any] = {"lr_generator": 1e-3, "lr_discriminator": 5e-4, "adam_betas": (0.5, 0.99)}
_NEAR: dict[str, Any] = {"content_level": 2, "warm_up_steps": 0}
_EMBEDDED: dict[str, PublishedSettings] = {
    "lwcomicgan": PublishedSettings(
        train={
            **_FAST,
            "lr_generator": 2e-3,
            "losses": {
                **_NEAR,
                "adversarial": 300.0,
                "content": 3.0,
                "texture": 15.0,
                "colour": 90.0,
                "penalty_every_steps": 4,
            },
        }
    ),
    "animegan": PublishedSettings(train={**_FAST, "losses": _NEAR}),
    "animeganv2": PublishedSettings(train={**_FAST, "losses": _NEAR}),
    "cartoongan": PublishedSettings(train={**_FAST, "losses": _NEAR}),
    "cyclegan": PublishedSettings(train={**_FAST, "losses": {"warm_up_steps": 0}}),
}
"""What no paper says: for the embedded backbone, whose features are of another size than VGG-19's, and for trainings of
minutes on few pictures. LWComicGAN's weights were found by trial; of the others only rates and level are changed."""

PUBLISHED: dict[str, dict[str, PublishedSettings]] = {
    "vox": {
        "first-order": _fomm(epochs=100, repeats=75, batch_size=40, model={}, train=_BY_IDENTITY),
        "articulated": _articulated(repeats=75, avd_repeats=2000, model={}, train=_BY_IDENTITY),
    },
    "vox-adv": {
        "first-order": _fomm(
            epochs=150, repeats=75, batch_size=36, model=_SEES_KEYPOINTS, train={**_BY_IDENTITY, **_ADVERSARIAL}
        ),
    },
    "taichi": {
        "first-order": _fomm(
            epochs=100, repeats=150, batch_size=30, model={"discriminator_norm": "instance"}, train=_BY_IDENTITY
        ),
        "articulated": _articulated(repeats=150, avd_repeats=150, model=_NO_PADDING, train=_BY_IDENTITY),
    },
    "taichi-adv": {
        "first-order": _fomm(
            epochs=150,
            repeats=150,
            batch_size=27,
            model=_SEES_KEYPOINTS,
            train={**_BY_IDENTITY, **_ADVERSARIAL, "lr_keypoint_detector": 0.0},
        ),
    },
    "mgif": {
        "first-order": _fomm(
            epochs=100,
            repeats=25,
            batch_size=36,
            model={"single_jacobian_map": True},
            train={"augment": _CARTOON_JITTER, "losses": {"gan": "lsgan"}},
        ),
        "articulated": _articulated(
            repeats=50,
            avd_repeats=50,
            avd_milestones=(),  # published as 60 and 90, of 30 epochs
            model={"background": "none", **_NO_PADDING},
            train={"augment": _CARTOON_JITTER},
        ),
    },
    "fashion": {
        "first-order": _fomm(
            epochs=100,
            repeats=50,
            batch_size=27,
            model={"discriminator_norm": "instance"},
            train={"augment": {"hue": 0.1}, "losses": {"gan": "lsgan"}},
        ),
    },
    "embedded": _EMBEDDED,
}
"""Name of a data set's published settings -> `settings_kind` -> what they are (public configurations, 256 px).

``vox-adv`` and ``taichi-adv`` go on from the models without a discriminator (``init_from``). What a paper leaves out is
its base model's.
"""
