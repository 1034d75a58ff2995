"""What can be set about training the style family; the meaning, unit and rule of each key."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from models.errors import check
from training.config import Rule, TrainConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class StyleLossConfig:
    """Losses and the rhythm of generator and critic. The weights are LWComicGAN's (table 1); 0 leaves a term out."""

    gan: Literal["none", "wgan-gp", "lsgan"] = "wgan-gp"
    """``wgan-gp``: Wasserstein with gradient penalty; ``lsgan``: least squares, as AnimeGAN and CycleGAN."""
    adversarial: float = 350.0
    content: float = 2.5
    """Of the features of output and photo."""
    texture: float = 12.5
    """Of the Gram matrices of output and gray style picture."""
    colour: float = 15.0
    total_variation: float = 0.0
    content_level: int = 4
    """Which of the backbone's five levels content and texture are taken from, 1 the finest; VGG-19's fourth is
    relu4_1, where the paper has conv4_4."""
    penalty: float = 10.0
    """Lambda of the gradient penalty, by itself: ``adversarial`` does not multiply it."""
    penalty_every_steps: int = 1
    """The penalty is computed in every so-many-th step, and weighs so many times as much."""
    critic_steps: int = 1
    """Steps of the critic for each of the generator."""
    real: float = 1.0
    """Weight of the style picture as a right one for the critic; others than 1 are for ``lsgan`` (AnimeGANv2: 1.2)."""
    made_negative: float = 1.0
    """Weight of the generator's picture as a wrong one for the critic."""
    gray_negative: float = 0.0
    """Weight of the gray style picture as a wrong one for the critic (AnimeGAN: 1)."""
    smooth_negative: float = 0.0
    """Weight of the edge-smoothed style picture as a wrong one (CartoonGAN: 1, AnimeGAN: 0.1)."""
    cycle: float = 0.0
    """CycleGAN: of pictures that went to the other side and back (published: 10)."""
    identity: float = 0.0
    """CycleGAN: of pictures that are already on the side to which they are taken (published: 5)."""
    warm_up_steps: int = 0
    """Steps at the beginning in which the generator learns the content alone."""
    warm_up_epochs: int | None = None
    """In place of ``warm_up_steps``."""
    lr_warm_up: float = 1e-4
    max_wasserstein: float = 1e3
    """A critic whose estimate of the distance is above this has diverged: the training stops."""
    max_penalty: float = 1e3
    """Likewise of the weighed gradient penalty."""

    def __post_init__(self) -> None:
        weights: tuple[str, ...] = ("adversarial", "content", "texture", "colour", "total_variation", "penalty")
        weights += ("gray_negative", "smooth_negative", "warm_up_steps")
        weights += ("cycle", "identity")
        judged = self.gan == "none" or self.adversarial > 0
        check(
            *((getattr(self, key) >= 0, key, getattr(self, key), "be 0 or more") for key in weights),
            *(
                (getattr(self, key) >= 1, key, getattr(self, key), "be 1 or more")
                for key in ("penalty_every_steps", "critic_steps")
            ),
            (
                self.warm_up_epochs is None or self.warm_up_epochs >= 0,
                "warm_up_epochs",
                self.warm_up_epochs,
                "be 0 or more, or null",
            ),
            (judged, "gan", self.gan, "be none where adversarial is 0"),
            (min(self.real, self.made_negative) > 0, "real", self.real, "be above 0, like made_negative"),
            (self.gan != "wgan-gp" or self.real == 1, "real", self.real, "be 1 with gan: wgan-gp"),
            (1 <= self.content_level <= 5, "content_level", self.content_level, "lie in 1 to 5"),
            (self.gan != "wgan-gp" or self.penalty > 0, "penalty", self.penalty, "be above 0 with gan: wgan-gp"),
            (
                min(self.lr_warm_up, self.max_wasserstein, self.max_penalty) > 0,
                "lr_warm_up",
                self.lr_warm_up,
                "be above 0, like max_wasserstein and max_penalty",
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StyleTrainConfig(TrainConfig):
    """One training of the style family, whose samples are a photo and a style picture that are no pair."""

    losses: StyleLossConfig = field(default_factory=StyleLossConfig)
    crop: tuple[float, float] = (1.0, 1.0)
    """A square is cut at a random place out of each picture: its side as a share of the picture's is drawn between
    these, and it is resized to the networks' size. (1, 1): the whole picture."""
    num_validation_photos: int = 32
    """Of the test split, stylised and judged by their KID to the style pictures of the training."""

    def needs_backbone(self) -> bool:
        """Whether content or texture weigh anything."""
        return bool(self.losses.content or self.losses.texture)

    def _rules(self) -> list[Rule]:
        return [
            *TrainConfig._rules(self),
            (
                len(self.crop) == 2 and 0 < self.crop[0] <= self.crop[1] <= 1,
                "crop",
                self.crop,
                "be two shares in (0, 1], the smaller first",
            ),
            (self.num_validation_photos >= 2, "num_validation_photos", self.num_validation_photos, "be 2 or more"),
        ]
