"""Frames per second of animation, beside the same animation computed the published way.

    python benchmarks/animate.py --json animate.json

Frames are smooth random pictures, weights random, with the statistics of batch normalisation taken from such frames:
right for times; what 16 and 8 bits cost in the picture has to be judged on trained weights. Each variant finds the
keypoints of every driving frame, lays their movement on the source (relative mode) and renders, ``--batch`` frames at
once (``reference``: one at a time, the source encoded again for each, benchmarks/reference.py). Each has a process of
its own and they take turns, round after round. The ONNX variants need onnx, onnxscript and onnxruntime, and are left
out with a line where those are missing; ``onnx-int8`` computes the renderer's convolutions in 8 bits.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import timing
import torch
from graphs import EightBitGraph, Graph, moved, quantise
from torch import Tensor, nn

from models.catalog import MODELS
from models.export import export_motion
from models.fold import folded
from models.motion.config import MotionConfig
from models.motion.generator import Generator
from models.motion.keypoints import Detector, Keypoints
from models.motion.networks import build, debug_config
from training.speed import KEPT_MEMORY

BASE = "reference"
PROJECT = {"GOMP_SPINCOUNT": "1000", **KEPT_MEMORY}
Frames = Callable[[Tensor], Tensor]
"""Driving frames (N, 3, S, S) in [0, 1] -> the source in their poses, likewise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    fold: bool = False
    channels_last: bool = False
    bf16: bool = False
    compile_mode: str | None = None
    onnx: str | None = None
    """``fp32`` or ``int8``."""
    environment: Mapping[str, str] = field(default_factory=lambda: PROJECT)


VARIANTS: dict[str, Variant] = {
    BASE: Variant(environment={"GOMP_SPINCOUNT": "1000"}),
    "eager": Variant(),
    "channels-last": Variant(channels_last=True),
    "folded": Variant(fold=True, channels_last=True),
    "bf16": Variant(fold=True, channels_last=True, bf16=True),
    "compile": Variant(fold=True, channels_last=True, compile_mode="default"),
    "bf16-compile": Variant(fold=True, channels_last=True, bf16=True, compile_mode="default"),
    "bf16-graphs": Variant(fold=True, channels_last=True, bf16=True, compile_mode="reduce-overhead"),
    "onnx": Variant(onnx="fp32"),
    "onnx-int8": Variant(onnx="int8"),
}
CHOSEN = {
    "cpu": (BASE, "eager", "folded", "bf16", "onnx", "onnx-int8"),
    "cuda": (BASE, "eager", "channels-last", "folded", "bf16", "bf16-compile", "bf16-graphs"),
}


def made_networks(options: argparse.Namespace) -> tuple[dict[str, nn.Module], MotionConfig]:
    """Networks with random weights and sound statistics, in eval mode; the same for every variant."""
    spec = MODELS[options.preset]
    config = debug_config(**spec.model) if options.debug else MotionConfig(**{**spec.model, "size_px": options.size})
    torch.manual_seed(0)
    networks = build(config)
    frames = timing.made_frames(4, config.size_px, seed=7) / 255
    with torch.no_grad():
        for _ in range(8):
            found = networks["keypoint_detector"](frames)
            turned = Keypoints(*(None if part is None else part.roll(1, 0) for part in found))  # type: ignore[arg-type]
            networks["generator"](frames, source_keypoints=found, driving_keypoints=turned)
    return {name: network.eval() for name, network in networks.items()}, config


def published(networks: Mapping[str, nn.Module], config: MotionConfig, source: Tensor) -> Frames:
    import reference

    reference.as_published(networks, config)
    detector, generator = networks["keypoint_detector"].eval(), networks["generator"].eval()

    @torch.no_grad()
    def animate(driving: Tensor) -> Tensor:
        made, start, first = [], detector(source), detector(driving[:1])
        for frame in torch.split(driving, 1):
            goal = moved(start, detector(frame), first)
            made.append(generator(source, source_keypoints=start, driving_keypoints=goal).prediction)
        return torch.cat(made)

    return animate


def in_torch(networks: Mapping[str, nn.Module], variant: Variant, source: Tensor, batch: int) -> Frames:
    """The way of `pipelines.engines.TorchSession`, with the variant's means."""
    detector, generator = networks["keypoint_detector"], networks["generator"]
    assert isinstance(detector, Detector), "networks['keypoint_detector'] is the motion family's"
    assert isinstance(generator, Generator), "networks['generator'] is the motion family's"
    if variant.fold:
        means = {"channels_last": variant.channels_last, "bf16": variant.bf16}
        detector, generator = folded(detector, **means), folded(generator, **means)
    elif variant.channels_last:
        detector, generator = (n.to(memory_format=torch.channels_last) for n in (detector, generator))  # type: ignore
    find, decode = detector.__call__, generator.decode
    if variant.compile_mode is not None:
        find, decode = (torch.compile(each, mode=variant.compile_mode) for each in (find, decode))
    order = torch.channels_last if variant.channels_last else torch.contiguous_format
    begin = timing.step_marker(variant.compile_mode)

    @torch.inference_mode()
    def animate(driving: Tensor) -> Tensor:
        made, picture = [], source.contiguous(memory_format=order)
        with torch.autocast(source.device.type, dtype=torch.bfloat16, enabled=variant.bf16):
            start, first, encoded = detector(picture), detector(driving[:1]), generator.encode(picture)
            for frames in torch.split(driving, batch):
                begin()
                count = len(frames)
                goal = moved(start.expand(count), find(frames.contiguous(memory_format=order)), first)
                rendered = decode(encoded.expand(count), source_keypoints=start.expand(count), driving_keypoints=goal)
                made.append(rendered.prediction.float().clone())
        return torch.cat(made)

    return animate


def graph_of(options: argparse.Namespace, kind: str) -> Graph:
    """The graph of a kind; its files are made when they are not there."""
    plain: Path = options.onnx
    if not plain.is_file():
        export_motion(*made_networks(options), plain)
    if kind == "fp32":
        return Graph(plain, options.threads)
    renderer = plain.with_suffix(f".{kind}-{options.batch}.onnx")
    if not renderer.is_file():
        networks, config = made_networks(options)
        frames = timing.made_frames(max(6, options.batch), config.size_px, seed=11) / 255
        graph = Graph(plain, options.threads)
        quantise(networks["generator"], graph, frames, renderer, batch=options.batch)
    return EightBitGraph(plain, renderer, options.threads)


def animator(options: argparse.Namespace, name: str, source: Tensor) -> Frames:
    """What animates as the variant does."""
    variant, batch = VARIANTS[name], options.batch
    if variant.onnx is not None:
        graph = graph_of(options, variant.onnx)
        return lambda driving: graph.animate(source, driving, batch)
    networks, config = made_networks(options)
    networks = {key: network.to(source.device) for key, network in networks.items()}
    return published(networks, config, source) if name == BASE else in_torch(networks, variant, source, batch)


def turn(options: argparse.Namespace, name: str) -> dict[str, Any]:
    """Run one variant: seconds a frame, a digest of what it made, its peak of memory."""
    device = torch.device(options.device)
    torch.set_num_threads(options.threads)
    if name != BASE:
        torch.set_flush_denormal(True)
        torch.backends.cudnn.benchmark = True
    size_px = debug_config().size_px if options.debug else options.size
    source, driving = (timing.made_frames(n, size_px, seed=n).to(device) / 255 for n in (1, options.frames))
    animate = animator(options, name, source)
    for _ in range(3 if VARIANTS[name].compile_mode else 1):
        made = animate(driving)
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    seconds = timing.timed(lambda: animate(driving), options.repeats, wait=wait, clock=options.clock)
    np.save(Path(options.made) / f"{name}.npy", made[:8].cpu().numpy())
    return {"seconds": [each / options.frames for each in seconds], "peak_mb": timing.peak_mb(device)}


def differences(folder: Path, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """How far each variant's frames are from the reference's: in [0, 1], and in dB under a signal.

    ``psnr_db`` takes the whole range for the signal and flatters the pale frames of untrained networks; ``snr_db``
    takes the reference's own deviation from its mean.
    """
    path, found = folder / f"{BASE}.npy", {}
    if not path.is_file():
        return {}
    wanted = np.load(path).astype(np.float64)
    for name in names:
        error = np.load(folder / f"{name}.npy").astype(np.float64) - wanted
        noise = max(float(np.sqrt(np.mean(error**2))), 1e-9)
        figures = {"mean": float(np.abs(error).mean()), "largest": float(np.abs(error).max())}
        found[name] = figures | {"psnr_db": _decibel(1 / noise), "snr_db": _decibel(float(np.std(wanted)) / noise)}
    return found


def _decibel(ratio: float) -> float:
    return float(20 * np.log10(max(ratio, 1e-9)))


def table(rows: Mapping[str, Mapping[str, Any]], apart: Mapping[str, Mapping[str, float]]) -> str:
    head = f"{'variant':<16}{'ms/frame':>10}{'min ms':>9}{'frames/s':>10}{'medians':>9}{'minima':>8}{'peak MB':>9}"
    lines = [f"{head}{'mean difference':>17}{'SNR':>9}"]
    for name, row in rows.items():
        ratios = [f"{row[key]:.2f} x" if key in row else "" for key in ("ratio_of_medians", "ratio_of_minima")]
        speed = f"{row['median_s'] * 1e3:>10.1f}{row['min_s'] * 1e3:>9.1f}{1 / row['median_s']:>10.2f}"
        quality = (
            f"{apart[name]['mean']:>17.1e}{apart[name]['snr_db']:>6.1f} dB" if name in apart and name != BASE else ""
        )
        lines.append(f"{name:<16}{speed}{ratios[0]:>9}{ratios[1]:>8}{row['peak_mb']:>9,.0f}{quality}")
    return "\n".join(lines) + "\n"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256, help="of a frame in px")
    parser.add_argument("--batch", type=int, default=4, help="frames rendered at once (reference: 1)")
    parser.add_argument("--preset", choices=list(MODELS), default="fomm")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), help="default: those of the device")
    parser.add_argument("--frames", type=int, default=16, help="of the driving video")
    parser.add_argument("--repeats", type=int, default=2, help="of the whole video, timed, in each round")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2, help="of the CPU")
    parser.add_argument("--device", choices=tuple(CHOSEN), default="cpu")
    parser.add_argument("--clock", choices=tuple(timing.CLOCKS), default="wall", help="cpu: on busy machines, 1 thread")
    parser.add_argument("--debug", action="store_true", help="tiny networks, to try the program itself")
    parser.add_argument("--onnx", type=Path, help="keep the graphs there; default: a temporary folder")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--made", help=argparse.SUPPRESS)
    parser.add_argument(timing.TURN, choices=list(VARIANTS), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda must find a GPU; got none. Use --device cpu, or a torch that is built for CUDA.")
    return options


@contextlib.contextmanager
def workplace(options: argparse.Namespace) -> Iterator[list[str]]:
    """A folder for what the turns share, as options of theirs."""
    with tempfile.TemporaryDirectory(prefix="animate-") as folder:
        onnx = options.onnx or Path(folder) / "motion.onnx"
        yield ["--made", folder, "--onnx", str(onnx)]


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    if options.turn is not None:
        timing.tell(turn(options, options.turn))
        return
    names = options.variants or CHOSEN[options.device]
    given = list(sys.argv[1:] if arguments is None else arguments)
    environments = {name: VARIANTS[name].environment for name in names}
    with workplace(options) as shared:
        turns = timing.take_turns(Path(__file__), environments, options.rounds, [*given, *shared])
        apart = differences(Path(shared[1]), list(turns))
    if not turns:
        sys.exit("no variant came to its end")
    rows = timing.digest(turns, BASE)
    sys.stdout.write(table(rows, apart))
    settings = {
        key: str(value) for key, value in vars(options).items() if key not in ("json", "turn", "variants", "made")
    }
    where = timing.machine(torch.device(options.device))
    figures = {"settings": settings, "machine": where, "variants": rows, "differences": apart, "turns": turns}
    timing.write_json(options.json, figures)


if __name__ == "__main__":
    main()
