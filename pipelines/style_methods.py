"""Ways to make a drawing of a photo that train nothing: the photo itself is optimised towards one style picture."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from models.errors import ClipError, check, must

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from models.perceptual import Perceptual
    from pipelines.engines import Device
    from pipelines.evaluate_style_work import Place
    from training.shard_reader import ShardReader

WCT_LEVELS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodConfig:
    """One of them; what it makes is judged like the drawings of a trained model."""

    method: Literal["gatys", "wct"]
    """``gatys``: `models.style.gatys`; ``wct``: `models.style.wct`."""
    dataset: str
    """Whose test photos are drawn."""
    style_dataset: str
    """Of whose training split each photo is given one picture."""
    backbone: Literal["effnet-lite0", "vgg19"] = "effnet-lite0"
    """Whose features are compared."""
    steps: int | None = None
    """Evaluations of the loss, of ``wct`` shared between its levels; null: the method's own number."""
    optimizer: Literal["lbfgs", "adam"] | None = None
    """Of the photo's pixels; null: the method's own. In tens of steps ``adam`` gets farther."""
    style_weight: float | None = None
    """Of ``gatys``; null: its own."""
    total_variation: float | None = None
    """Likewise; against the checkered noise that optimised pictures have."""
    strength: float | None = None
    """Of ``wct``, 0 to 1; null: its own."""

    def __post_init__(self) -> None:
        steps, weight, strength, noise = self.steps, self.style_weight, self.strength, self.total_variation
        least = 1 if self.method == "gatys" else WCT_LEVELS
        check(
            (steps is None or steps >= least, "steps", steps, f"be {least} or more, or null"),
            (weight is None or weight >= 0, "style_weight", weight, "be 0 or more, or null"),
            (weight is None or self.method == "gatys", "style_weight", weight, "be null: gatys alone has it"),
            (noise is None or noise >= 0, "total_variation", noise, "be 0 or more, or null"),
            (noise is None or self.method == "gatys", "total_variation", noise, "be null: gatys alone has it"),
            (strength is None or 0 <= strength <= 1, "strength", strength, "lie in 0 to 1, or be null"),
            (strength is None or self.method == "wct", "strength", strength, "be null: wct alone has it"),
        )

    @property
    def sha256(self) -> str:
        """Of all that is set: it stands where a trained model has its weights' checksum."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


class Optimises:
    """Draws photos one by one, each towards a style picture of its own.

    A photo's pixels choose its style picture, so it does not depend on who draws it, when, or with what others.
    """

    def __init__(self, config: MethodConfig, styles: ShardReader, backbone: Perceptual) -> None:
        """Learn which style pictures there are.

        Args:
            config: what is done.
            styles: of which those of split train are given.
            backbone: on the device where it is to compute.

        Raises:
            ClipError: there is no style picture.
        """
        from pipelines.evaluate_style_work import places_of

        self.config, self.backbone, self._reader = config, backbone, styles
        self.device = next(backbone.parameters()).device
        self._places = places_of(styles.clips("train"))
        if not self._places:
            fix = "Lower datasets.<name>.test_share"
            raise ClipError(must(str(styles.folder), "hold a picture of split train", "none", fix))

    def stylise(self, pictures: np.ndarray) -> np.ndarray:
        """Drawings of photos: uint8 (N, H, W, 3) -> float32 (N, H, W, 3) in [0, 1]."""
        import numpy as np

        return np.stack([self._drawn(picture) for picture in pictures])

    def style_of(self, photo: np.ndarray) -> np.ndarray:
        """The style picture of a photo, both uint8 (H, W, 3)."""
        chosen = int.from_bytes(hashlib.sha256(photo.tobytes()).digest()[:8], "big") % len(self._places)
        return _read(self._reader, self._places[chosen])

    def _drawn(self, photo: np.ndarray) -> np.ndarray:
        import numpy as np

        made = _method(self.config)(self._tensor(photo), self._tensor(self.style_of(photo)), self.backbone)
        return np.asarray(made[0].permute(1, 2, 0).float().cpu().numpy())

    def _tensor(self, picture: np.ndarray) -> Tensor:
        import numpy as np
        import torch

        return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].to(self.device).float() / 255


def open_method(config: MethodConfig, *, styles: Path, weights: Path) -> Any:
    """What opens a method in whatever process draws; an `OpenEngine`.

    Args:
        config: of the method.
        styles: folder of the style pictures' shards.
        weights: folder of pretrained files.
    """
    return functools.partial(_open, config, str(styles.absolute()), str(weights.absolute()))


def _open(config: MethodConfig, styles: str, weights: str, _folder: Path, device: Device) -> Optimises:
    from models.perceptual import VGG19_FILE, build_perceptual
    from pipelines.engines import pick_device
    from training.shard_reader import ShardReader

    file = Path(weights) / VGG19_FILE.name if config.backbone == "vgg19" else None
    backbone = build_perceptual(config.backbone, file).to(pick_device(device)).requires_grad_(False)
    return Optimises(config, ShardReader(styles), backbone)


def _method(config: MethodConfig) -> Any:
    """(photo, style, backbone) -> drawing."""
    keys: dict[str, Any] = {"optimizer": config.optimizer}
    if config.method == "gatys":
        from models.style.gatys import GatysConfig, optimise

        keys |= {key: getattr(config, key) for key in ("steps", "style_weight", "total_variation")}
        return functools.partial(optimise, config=GatysConfig(**_set(keys)))
    from models.style.wct import WctConfig, transfer

    steps = None if config.steps is None else config.steps // WCT_LEVELS
    keys |= {"steps": steps, "strength": config.strength}
    own = WctConfig(**_set(keys))
    assert len(own.levels) == WCT_LEVELS, "the steps are shared between all levels"
    return functools.partial(transfer, config=own)


def _set(keys: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in keys.items() if value is not None}


def _read(reader: ShardReader, place: Place) -> np.ndarray:
    import numpy as np

    clips: Mapping[str, Any] = {clip.id: clip for clip in reader.clips()}
    return np.asarray(reader.frames(clips[place.clip], [place.position])[0])
