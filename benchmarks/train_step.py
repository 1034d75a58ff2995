"""Time of a training step, beside the same step computed the published way.

    python benchmarks/train_step.py --json train_step.json
    python benchmarks/train_step.py --device cuda --batch 32

Frames and weights are random, VGG-19's too, at the published widths; no data pipeline is in any figure. Each variant
has a process of its own and they take turns, round after round, because machines are noisy and memory allocation
belongs to a process. ``reference`` is the published way (benchmarks/reference.py); the others are this project's step
as it runs, with the moving average and the gradient's norm, which the reference has not. The losses of the first step
stand beside the reference's, so that something fast and wrong shows.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import timing
import torch
from torch import nn

from models.catalog import MODELS
from models.motion.config import MotionConfig
from models.motion.networks import build, debug_config
from models.perceptual import Vgg19
from training.config import LossConfig, MotionTrainConfig
from training.feed import PairBatch
from training.loop import Trainer
from training.recipes import motion
from training.speed import KEPT_MEMORY
from training.world import World

BASE = "reference"
QUIET = {"GOMP_SPINCOUNT": "1000"}
"""What the command line sets for every process."""
VGG_WIDTHS = {
    0: 64,
    2: 64,
    5: 128,
    7: 128,
    10: 256,
    12: 256,
    14: 256,
    16: 256,
    19: 512,
    21: 512,
    23: 512,
    25: 512,
    28: 512,
}
"""Layer -> channels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    train: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=lambda: {**QUIET, **KEPT_MEMORY})
    compile_mode: str | None = None
    """Of torch.compile, where it is not the default one; ``reduce-overhead`` records CUDA graphs."""


BF16: dict[str, Any] = {"precision": "bf16"}
VARIANTS: dict[str, Variant] = {
    BASE: Variant(environment=QUIET),
    "fp32": Variant(),
    "fp32-malloc": Variant(environment=QUIET),
    "fp32-channels-last": Variant(train={"channels_last": True}),
    "fp32-compile": Variant(train={"compile": True}),
    "bf16": Variant(train=BF16),
    "bf16-contiguous": Variant(train={**BF16, "channels_last": False}),
    "bf16-compile": Variant(train={**BF16, "compile": True}),
    "bf16-graphs": Variant(train=BF16, compile_mode="reduce-overhead"),
}
CHOSEN = {"cpu": (BASE, "fp32", "bf16"), "cuda": (BASE, "fp32", "bf16", "bf16-compile", "bf16-graphs")}


def random_vgg(*, narrow: int = 1) -> Vgg19:
    """VGG-19 with random weights, its channels divided by ``narrow``."""
    state, before = {}, 3
    for layer, width in VGG_WIDTHS.items():
        channels = width // narrow
        state[f"features.{layer}.weight"] = torch.randn(channels, before, 3, 3) * (2 / (9 * before)) ** 0.5
        state[f"features.{layer}.bias"] = torch.zeros(channels)
        before = channels
    return Vgg19(state)


def configurations(options: argparse.Namespace, variant: Variant) -> tuple[MotionConfig, MotionTrainConfig]:
    spec = MODELS[options.preset]
    model = debug_config(**spec.model) if options.debug else MotionConfig(**{**spec.model, "size_px": options.size})
    gan = options.gan or ("lsgan" if model.discriminator else "none")
    losses = {**spec.train.get("losses", {}), "gan": gan}
    train = {**spec.train, "perceptual_backbone": "vgg19", "losses": LossConfig(**losses)}
    small = {"perceptual_scales": (1.0, 0.5)} if options.debug else {}
    return model, MotionTrainConfig(**{**train, **small, "batch_size": options.batch, **variant.train})


def stepper(options: argparse.Namespace, name: str, device: torch.device) -> Trainer | Any:
    """What takes the variant's steps: has ``step(pairs)``."""
    variant = VARIANTS[name]
    model, train = configurations(options, variant)
    torch.manual_seed(0)
    networks = build(model)
    perceptual = random_vgg(narrow=16 if options.debug else 1)
    if name == BASE:
        import reference

        reference.as_published(networks, model)
    recipe = motion.build(networks, model=model, train=train, device=device, perceptual=perceptual)
    if name == BASE:
        return reference.PublishedStep(recipe, train)
    if variant.compile_mode is not None:
        compiled: list[nn.Module] = [perceptual, *(networks[n] for n in recipe.averaged)]
        for network in compiled:
            network.compile(mode=variant.compile_mode, dynamic=False)
    return Trainer(recipe, train, World(device=device))


def turn(options: argparse.Namespace, name: str) -> dict[str, Any]:
    """Run one variant: seconds of its steps, its first step's losses, its peak of memory."""
    device = torch.device(options.device)
    torch.set_num_threads(options.threads)
    if name != BASE:
        torch.set_flush_denormal(True)
        torch.backends.cudnn.benchmark = True
    steps = stepper(options, name, device)
    frames = timing.made_frames(2 * options.batch, debug_config().size_px if options.debug else options.size, seed=3)
    pairs = PairBatch(frames[: options.batch], frames[options.batch :], np.arange(options.batch))
    begin = timing.step_marker(VARIANTS[name].compile_mode)

    def once() -> dict[str, float]:
        begin()
        values: dict[str, float] = steps.step(pairs)
        return values

    losses = {key: value for key, value in once().items() if key.startswith("loss/")}
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    is_compiled = VARIANTS[name].compile_mode is not None or VARIANTS[name].train.get("compile", False)
    timing.timed(once, max(options.warm_up, 4 if is_compiled else 1) - 1, wait=wait)  # graphs are recorded late
    seconds = timing.timed(once, options.steps, wait=wait, clock=options.clock)
    return {"seconds": seconds, "peak_mb": timing.peak_mb(device), "losses": losses}


def table(rows: Mapping[str, Mapping[str, Any]], losses: Mapping[str, Mapping[str, float]], batch: int) -> str:
    lines = [f"{'variant':<20}{'median s':>10}{'min s':>9}{'pairs/s':>9}{'medians':>9}{'minima':>8}{'peak MB':>9}"]
    for name, row in rows.items():
        ratios = [f"{row[key]:.2f} x" if key in row else "" for key in ("ratio_of_medians", "ratio_of_minima")]
        speed = f"{row['median_s']:>10.3f}{row['min_s']:>9.3f}{batch / row['median_s']:>9.2f}"
        lines.append(f"{name:<20}{speed}{ratios[0]:>9}{ratios[1]:>8}{row['peak_mb']:>9,.0f}")
    lines.append("losses of the first step")
    for term in next(iter(losses.values())):
        values = "  ".join(f"{name} {each[term]:.6g}" for name, each in losses.items())
        lines.append(f"  {term.removeprefix('loss/'):<34}{values}")
    return "\n".join(lines) + "\n"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256, help="of a frame in px")
    parser.add_argument("--batch", type=int, default=2, help="pairs of frames a step")
    parser.add_argument("--preset", choices=list(MODELS), default="fomm")
    parser.add_argument(
        "--gan", choices=("none", "lsgan", "hinge"), help="default: lsgan where there is a discriminator"
    )
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), help="default: those of the device")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=3, help="timed, of each variant in each round")
    parser.add_argument("--warm-up", type=int, default=1, help="steps before them (4 or more with a compiler)")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU")
    parser.add_argument("--device", choices=tuple(CHOSEN), default="cpu")
    parser.add_argument("--clock", choices=tuple(timing.CLOCKS), default="wall", help="cpu: on busy machines, 1 thread")
    parser.add_argument("--debug", action="store_true", help="tiny networks, to try the program itself")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument(timing.TURN, choices=list(VARIANTS), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda must find a GPU; got none. Use --device cpu, or a torch that is built for CUDA.")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    if options.turn is not None:
        timing.tell(turn(options, options.turn))
        return
    names = options.variants or CHOSEN[options.device]
    given = list(sys.argv[1:] if arguments is None else arguments)
    environments = {name: VARIANTS[name].environment for name in names}
    turns = timing.take_turns(Path(__file__), environments, options.rounds, given)
    if not turns:
        sys.exit("no variant came to its end")
    rows = timing.digest(turns, BASE)
    losses = {name: runs[0]["losses"] for name, runs in turns.items()}
    sys.stdout.write(table(rows, losses, options.batch))
    settings = {key: value for key, value in vars(options).items() if key not in ("json", "turn", "variants")}
    where = timing.machine(torch.device(options.device))
    timing.write_json(
        options.json, {"settings": settings, "machine": where, "variants": rows, "losses": losses, "turns": turns}
    )


if __name__ == "__main__":
    main()
