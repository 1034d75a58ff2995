"""Works out the options of the networks from the shapes of a checkpoint's tensors alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from models.errors import CheckpointError, must
from models.importers.entries import States

_MAX_BLOCKS = 64
_BACKGROUNDS = {2: "shift", 6: "affine", 8: "perspective"}
_FIX = "The file is damaged, or was trained with other code than the published"


@dataclass(slots=True, kw_only=True)
class Fitted:
    """Options of `models.motion.config.MotionConfig` that shapes tell."""

    options: dict[str, Any] = field(default_factory=dict)
    at_least: dict[str, int] = field(default_factory=dict)
    """Options that shapes only bound from below: a limit of the width that no stage reaches, an expansion beyond it."""

    def widths(self, part: str, *, expansion: int, widest: int, reached: bool) -> None:
        """Note a part's expansion, and its limit of the width where a stage has ``reached`` it."""
        self.options[f"{part}_expansion"] = expansion
        known = self.options if reached else self.at_least
        known[f"{part}_max_features"] = widest


def infer(states: States, *, articulated: bool, where: str) -> Fitted:
    """The options that a checkpoint's shapes tell.

    Args:
        states: its entries by our names.
        articulated: whether it holds regions.
        where: names the file in errors.

    Raises:
        CheckpointError: an entry that an option is read from is missing, or two of them contradict each other.
    """
    found = {name: _Network(name, state, where) for name, state in states.items()}
    fitted = Fitted()
    _generator(found["generator"], fitted)
    _detector(found["keypoint_detector"], fitted, articulated=articulated)
    _scale(found["generator"], found["keypoint_detector"], fitted)
    fitted.options["discriminator"] = "discriminator" in found
    if "discriminator" in found:
        _discriminator(found["discriminator"], fitted)
    if articulated:
        _background(found.get("background_predictor"), fitted)
        fitted.options["avd"] = "avd" in found
    if "avd" in found:
        fitted.options["avd_identity_features"] = found["avd"].size("id_encoder.9.weight", 0)
        fitted.options["avd_pose_features"] = found["avd"].size("pose_encoder.9.weight", 0)
    return fitted


@dataclass(frozen=True, slots=True)
class _Network:
    """One network's entries, asked for with a reason when they are not there."""

    name: str
    state: Mapping[str, Tensor]
    where: str

    def size(self, entry: str, axis: int) -> int:
        """Of an axis of an entry."""
        tensor = self.state.get(entry)
        if tensor is None or tensor.ndim <= axis:
            got = "none" if tensor is None else f"the shape {tuple(tensor.shape)}"
            rule = f"hold {self.name}'s {entry}, whose shape tells an option"
            raise CheckpointError(must(self.where, rule, got, _FIX))
        return int(tensor.shape[axis])

    def conv(self, block: str) -> str:
        """Name of a convolution's weight, under spectral normalisation or not."""
        spectral = f"{block}.weight_orig"
        return spectral if spectral in self.state else f"{block}.weight"

    def count(self, before: str, after: str) -> int:
        """How many of ``before + i + after`` there are, from i = 0 on."""
        number = 0
        while f"{before}{number}{after}" in self.state and number <= _MAX_BLOCKS:
            number += 1
        self.must(number <= _MAX_BLOCKS, f"have at most {_MAX_BLOCKS} blocks at {before}", f"{number} or more")
        return number

    def out_widths(self, blocks: str) -> list[int]:
        """Output channels of each ``blocks.i.conv``."""
        name = self.conv(f"{blocks}.0.conv").removeprefix(f"{blocks}.0")
        number = self.count(f"{blocks}.", name)
        return [self.size(f"{blocks}.{i}{name}", 0) for i in range(number)]

    def must(self, holds: bool, rule: str, got: object) -> None:
        """Refuse what contradicts itself."""
        if not holds:
            raise CheckpointError(must(f"{self.where}: {self.name}", rule, got, _FIX))


def _generator(network: _Network, fitted: Fitted) -> None:
    options, dense = fitted.options, "dense_motion_network"
    motions = network.size(f"{dense}.mask.weight", 0)
    options["num_keypoints"] = motions - 1
    channels = network.size(f"{dense}.hourglass.encoder.down_blocks.0.conv.weight", 1)
    rule = "see the source moved by every motion (use_deformed_source, use_source_image)"
    network.must(channels == 4 * motions, rule, f"{channels} channels for {motions} motions")
    head = network.size(f"{dense}.mask.weight", 1)
    _hourglass(network, fitted, part="motion", place=f"{dense}.hourglass", expansion=head - channels)
    options["occlusion"] = "single" if f"{dense}.occlusion.weight" in network.state else "none"
    first, widths = network.size("first.conv.weight", 0), network.out_widths("down_blocks")
    widest = max([first, *widths])
    fitted.widths("generator", expansion=first, widest=widest, reached=widest < first * 2 ** len(widths))
    options["generator_down_blocks"] = len(widths)
    options["generator_bottleneck_blocks"] = network.count("bottleneck.r", ".conv1.weight")


def _detector(network: _Network, fitted: Fitted, *, articulated: bool) -> None:
    options, head = fitted.options, "regions.weight" if articulated else "kp.weight"
    number = network.size(head, 0)
    rule = f"find the {options['num_keypoints']} keypoints that the generator takes"
    network.must(number == options["num_keypoints"], rule, number)
    _hourglass(network, fitted, part="detector", place="predictor", expansion=network.size(head, 1) - 3)
    if articulated:
        rule = "find axes by the regions' covariance (pca_based: true)"
        network.must("jacobian.weight" not in network.state, rule, "axes that are regressed (pca_based: false)")
        return
    options["estimate_jacobian"] = "jacobian.weight" in network.state
    options["single_jacobian_map"] = False
    if options["estimate_jacobian"]:
        maps = network.size("jacobian.weight", 0)
        network.must(maps in (4, 4 * number), f"hold 4 or {4 * number} maps of Jacobians", maps)
        options["single_jacobian_map"] = maps == 4 and number > 1


def _hourglass(network: _Network, fitted: Fitted, *, part: str, place: str, expansion: int) -> None:
    widths = network.out_widths(f"{place}.encoder.down_blocks")
    network.must(bool(widths) and expansion >= 1, f"have an hourglass at {place}", f"{len(widths)} blocks")
    fitted.options[f"{part}_blocks"] = len(widths)
    full = expansion * 2 ** len(widths)
    fitted.widths(part, expansion=expansion, widest=max(widths), reached=max(widths) < full)


def _scale(generator: _Network, detector: _Network, fitted: Fitted) -> None:
    """An anti-alias filter's kernel has 4 (n - 1) + 1 pixels for a scale of 1 / n; without one the scale is 1."""
    strides = []
    for network, entry in ((generator, "dense_motion_network.down.weight"), (detector, "down.weight")):
        pixels = network.size(entry, 3) if entry in network.state else 1
        network.must(pixels % 4 == 1, "shrink its input by a whole factor", f"a filter of {pixels} px")
        strides.append((pixels - 1) // 4 + 1)
    rule = f"shrink its input as much as the generator's motion does (1/{strides[0]})"
    detector.must(strides[0] == strides[1], rule, f"1/{strides[1]}")
    fitted.options["scale_factor"] = 1 / strides[0]


def _background(network: _Network | None, fitted: Fitted) -> None:
    if network is None:
        fitted.options["background"] = "none"
        return
    rows = network.size("fc.weight", 0)
    network.must(rows in _BACKGROUNDS, "estimate 2, 6 or 8 numbers of the background's motion", rows)
    fitted.options["background"] = _BACKGROUNDS[rows]
    widths = network.out_widths("encoder.down_blocks")
    _encoder(network, fitted, part="background", widths=widths)


def _encoder(network: _Network, fitted: Fitted, *, part: str, widths: list[int]) -> None:
    """Stages that begin at twice the expansion, unless the limit of the width is below that."""
    network.must(bool(widths) and widths[0] >= 2, "have blocks", widths)
    fitted.options[f"{part}_blocks"] = len(widths)
    full, expansion = widths[0] * 2 ** (len(widths) - 1), widths[0] // 2
    fitted.widths(part, expansion=expansion, widest=max(widths), reached=max(widths) < full)
    if len(widths) == 1 or widths[1] == widths[0]:
        fitted.at_least[f"{part}_expansion"] = fitted.options.pop(f"{part}_expansion")


def _discriminator(network: _Network, fitted: Fitted) -> None:
    names = list(dict.fromkeys(key.split(".")[1] for key in network.state if key.startswith("discs.")))
    network.must(bool(names), "hold a discriminator for each scale (discs)", sorted(network.state)[:2])
    scales = tuple(_as_scale(network, name) for name in names)
    options, place = fitted.options, f"discs.{names[0]}"
    first = network.conv(f"{place}.down_blocks.0.conv")
    options["discriminator_scales"] = scales
    seen, points = network.size(first, 1), options["num_keypoints"]
    network.must(seen in (3, 3 + points), f"see 3 channels, or {3 + points} with the keypoints", seen)
    options["discriminator_keypoints"] = seen != 3
    _encoder(network, fitted, part="discriminator", widths=network.out_widths(f"{place}.down_blocks"))
    spectral = first.endswith("_orig")
    # The first block never has a norm; with no other block there is nothing to tell.
    instance = f"{place}.down_blocks.1.norm.weight" in network.state or options["discriminator_blocks"] == 1
    network.must(spectral or instance, "have a normalisation", "none")
    options["discriminator_norm"] = "multi" if spectral and instance else "spectral" if spectral else "instance"


def _as_scale(network: _Network, name: str) -> float:
    try:
        scale = float(name.replace("-", "."))
    except ValueError:
        scale = 0.0
    network.must(0 < scale <= 1, "name its scales by numbers in (0, 1]", name[:40])
    return scale
