"""What can be set about facial destylisation and about refining its codes; the meaning, unit and rule of each key."""

from __future__ import annotations

from dataclasses import dataclass

from models.errors import check


@dataclass(frozen=True, slots=True, kw_only=True)
class DestyliseConfig:
    """How the face behind a style picture is found (Yang et al., CVPR 2022, 3.1); 0 leaves a term out."""

    seed: int = 0
    """A picture's draws depend on this and on its name alone."""
    steps: int = 300
    """Of the optimisation of code and noise."""
    learning_rate: float = 0.1
    ramp_up: float = 0.05
    """Share of the steps in which the learning rate rises from 0, in a straight line."""
    ramp_down: float = 0.25
    """Share of the steps in which it falls to 0, by a half cosine."""
    perceptual: float = 1.0
    """Of the distance in the backbone's features."""
    identity: float = 0.1
    """Of one minus the cosine of what tells faces apart."""
    mse: float = 1.0
    """Of the mean squared difference of the pictures in [0, 1]."""
    spread: float = 1.0
    """Of the deviation of a picture's codes from each other, which keeps them where codes are faces."""
    noise: float = 1e5
    """Of the correlation of neighbouring noise, at every scale: the noise may not draw the picture."""
    truncation: float = 0.7
    """How far from the mean the destylised face may lie, in what is encoded again; 1: as far as it does."""
    keep_colours: bool = True
    """The layers that change colour keep the codes that the encoder gave at first."""
    batch: int = 1
    """Pictures optimised together. Above 1 is faster on a GPU, and the last bits depend on who is together."""

    def __post_init__(self) -> None:
        weights = ("perceptual", "identity", "mse", "spread", "noise")
        shares = ("ramp_up", "ramp_down")
        check(
            (self.steps >= 1, "steps", self.steps, "be 1 or more"),
            (self.batch >= 1, "batch", self.batch, "be 1 or more"),
            (self.learning_rate > 0, "learning_rate", self.learning_rate, "be above 0"),
            *((getattr(self, key) >= 0, key, getattr(self, key), "be 0 or more") for key in weights),
            *((0 < getattr(self, key) <= 1, key, getattr(self, key), "lie above 0, at most at 1") for key in shares),
            (0 < self.truncation <= 1, "truncation", self.truncation, "lie above 0, at most at 1"),
            (any(getattr(self, key) for key in ("perceptual", "mse")), "perceptual", 0, "be above 0, or mse"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RefineConfig:
    """How a picture's extrinsic codes are fitted to a trained DualStyleGAN; 0 leaves a term out."""

    seed: int = 0
    steps: int = 100
    """Of the optimisation of code and noise; 0 takes the codes over as they are."""
    lr_structure: float = 0.005
    """Learning rate of the codes of the layers that change structure."""
    lr_colour: float = 0.01
    """Of those that change colour."""
    lr_noise: float = 0.1
    perceptual: float = 1.0
    contextual: float = 1.0
    noise: float = 1e5

    def __post_init__(self) -> None:
        not_negative = ("lr_structure", "lr_colour", "lr_noise", "perceptual", "contextual", "noise")
        check(
            (self.steps >= 0, "steps", self.steps, "be 0 or more"),
            *((getattr(self, key) >= 0, key, getattr(self, key), "be 0 or more") for key in not_negative),
            (self.perceptual + self.contextual > 0, "perceptual", self.perceptual, "be above 0, or contextual"),
        )
