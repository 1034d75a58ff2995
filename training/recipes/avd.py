"""The second stage of Articulated Animation: animation via disentanglement, everything else standing still.

Siarohin et al., CVPR 2021, section 3.5: the source's regions give the identity, the driving frame's, stretched at
random, the pose; what comes out must be the driving frame's regions as they were.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from models.errors import CheckpointError, must
from models.motion.avd import AvdNetwork
from models.motion.config import MotionConfig
from models.motion.keypoints import Keypoints
from training.config import AvdConfig, MotionTrainConfig
from training.feed import PairBatch
from training.optim import adam
from training.phases import Batch, Phase, PhaseOutput
from training.randomness import keyed
from training.recipes.motion import MotionRecipe
from training.recipes.motion_phases import Precision, weighted_l1
from training.speed import chosen


def build(
    networks: Mapping[str, nn.Module],
    *,
    model: MotionConfig,
    train: MotionTrainConfig,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> AvdRecipe:
    """Set up the second stage.

    Args:
        networks: of `models.motion.networks.build`, with ``avd``; all but that are trained already.
        model: their configuration.
        train: the stage's; ``train.avd`` says how the regions are stretched and what the losses weigh.
        device: where the training computes.
        dtype: of the weights.

    Raises:
        CheckpointError: the model has no AVD networks.
    """
    if not isinstance(networks.get("avd"), AvdNetwork):
        fix = "Set model.avd, or train one stage only (avd.max_steps: 0)"
        raise CheckpointError(must("the model of a second stage", "have AVD networks", sorted(networks), fix))
    for name, network in networks.items():
        network.to(device=device, dtype=dtype).train(name == "avd").requires_grad_(name == "avd")
    return AvdRecipe(networks, model=model, train=train, device=device, dtype=dtype, perceptual=None)


class AvdRecipe(MotionRecipe):
    """One phase, which trains the AVD networks; pictures and validation are the first stage's."""

    def _phases(self, perceptual: nn.Module | None) -> list[Phase]:
        avd = self.networks["avd"]
        assert isinstance(avd, AvdNetwork), "checked by build"
        self.averaged = (*self.averaged, "avd")
        module = AvdPhase(
            avd, detector=self.networks["keypoint_detector"], config=self.train.avd, precision=self.precision
        )
        fused = chosen(self.train, self.device).fused_optimizer
        trained = {"avd": (avd.parameters(), self.train.avd.learning_rate)}
        optimizer = adam(trained, self.train.adam_betas, fused=fused)
        return [self._phase("avd", module, optimizer)]

    def prepare(self, pairs: PairBatch) -> Batch:
        """Frames as in the first stage, and how each driving frame's regions are stretched."""
        batch = dict(super().prepare(pairs))
        spread = self.train.avd.distortion
        drawn = [keyed(self.train.seed, "avd", int(item)).uniform(1 - spread, 1 + spread, 2) for item in pairs.items]
        batch["stretch"] = torch.from_numpy(np.stack(drawn)).to(self.device, self.dtype)
        return batch


class AvdPhase(nn.Module):
    """Trains the AVD networks."""

    def __init__(self, avd: AvdNetwork, *, detector: nn.Module, config: AvdConfig, precision: Precision) -> None:
        super().__init__()
        self.avd = avd
        self.config, self.precision = config, precision
        self._used = (detector,)  # in a tuple, so that it is not registered

    def forward(self, batch: Batch, carry: Mapping[str, Tensor]) -> PhaseOutput:
        """Losses of one batch.

        Args:
            batch: ``source`` and ``driving`` in [0, 1], (B, 3, H, W); ``stretch`` along x and y, (B, 2).
            carry: nothing is read.
        """
        detector = self._used[0].eval()
        with torch.no_grad(), self.precision.context():
            identity: Keypoints = detector(batch["source"])
            wanted: Keypoints = detector(batch["driving"])
        assert wanted.jacobian is not None, "regions have axes"
        made: Keypoints = self.avd(identity, stretched(wanted, batch["stretch"]))
        assert made.jacobian is not None, "regions have axes"
        return PhaseOutput(
            {
                "shift": weighted_l1(made.value, wanted.value, self.config.shift),
                "affine": weighted_l1(made.jacobian, wanted.jacobian, self.config.affine),
            },
            {},
        )


def stretched(regions: Keypoints, factors: Tensor) -> Keypoints:
    """Regions of a picture that is stretched by ``factors`` (B, 2) along x and y."""
    assert regions.jacobian is not None, "regions have axes"
    factors = factors.to(regions.value.dtype)
    axes = regions.jacobian * factors[:, None, :, None]
    return Keypoints(regions.value * factors[:, None, :], axes, axes @ axes.transpose(-1, -2))
