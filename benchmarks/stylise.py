"""Milliseconds a picture of the stylising generators, beside AnimeGANv2's.

    python benchmarks/stylise.py --json stylise.json

Pictures are smooth and random, weights random: right for times. Each variant is a network and a way to compute it, has
a process of its own, and they take turns, round after round. ``--clock cpu`` with one thread is what is left to compare
by on a machine that others use too. The ONNX variants need onnxscript and onnxruntime, and are left out with a line
where those are missing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import timing
import torch
from torch import Tensor

from models.export_style import export_style
from models.style.config import StyleConfig
from models.style.generator import StyleGenerator

NETWORKS = {
    "animeganv2": StyleConfig(layout="animeganv2", norm="layer"),
    "lwcomicgan": StyleConfig(),
    "tiny": StyleConfig(width=24),
}
WAYS = ("eager", "channels-last", "onnx", "onnx-int8")
VARIANTS = {f"{network}/{way}": (network, way) for way in WAYS for network in NETWORKS}
CHOSEN = {"cpu": WAYS, "cuda": WAYS[:2]}
ENVIRONMENT = {"GOMP_SPINCOUNT": "1000", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}
"""glibc keeps freed memory, as `pipelines.style_engines.TorchStyle` asks it to."""


def made_network(options: argparse.Namespace, name: str) -> tuple[StyleGenerator, StyleConfig]:
    """A generator with random weights, in eval mode; the same for every way."""
    config = NETWORKS[name]
    if options.quick:
        config = StyleConfig(layout=config.layout, norm=config.norm, width=8, num_blocks=1)
    torch.manual_seed(0)
    return StyleGenerator(config).eval(), config


def in_torch(generator: StyleGenerator, way: str, device: torch.device) -> Callable[[Tensor], Tensor]:
    order = torch.channels_last if way == "channels-last" else torch.contiguous_format
    network = generator.to(device).to(memory_format=order)  # type: ignore[call-overload]

    @torch.inference_mode()
    def draw(photo: Tensor) -> Tensor:
        made: Tensor = network(photo.contiguous(memory_format=order))
        return made

    return draw


def in_onnx(generator: StyleGenerator, config: StyleConfig, way: str, threads: int) -> Callable[[Tensor], Tensor]:
    import numpy as np
    import onnxruntime

    from pipelines.style_variants import write_int8

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    with tempfile.TemporaryDirectory(prefix="stylise-") as folder:
        path = Path(folder) / "fp32.onnx"
        export_style(generator, config, path)
        if way == "onnx-int8":
            pictures = timing.made_frames(2, 64, seed=11).permute(0, 2, 3, 1).contiguous().numpy()
            write_int8(path, path := Path(folder) / "int8.onnx", pictures)
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    num_statistics = next(port.shape[-1] for port in session.get_inputs() if port.name == "given")

    def draw(photo: Tensor) -> Tensor:
        given = np.zeros((len(photo), 2, num_statistics), np.float32)
        feeds = {"photo": photo.numpy(), "given": given, "part": np.array(0, np.int64)}
        return torch.from_numpy(session.run(["drawing"], feeds)[0])

    return draw


def drawer(options: argparse.Namespace, name: str) -> Callable[[Tensor], Tensor]:
    """What draws photos (1, 3, H, W) in [0, 1] as the variant does."""
    network, way = VARIANTS[name]
    generator, config = made_network(options, network)
    if way.startswith("onnx"):
        return in_onnx(generator, config, way, options.threads)
    return in_torch(generator, way, torch.device(options.device))


def turn(options: argparse.Namespace, name: str) -> dict[str, Any]:
    """Run one variant: seconds a picture of the asked size, and the peak of memory."""
    device = torch.device(options.device)
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    torch.backends.cudnn.benchmark = True
    photo = timing.made_frames(1, options.size, seed=1).to(device) / 255
    draw = drawer(options, name)
    wait = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
    draw(photo)
    wait()
    seconds = timing.timed(lambda: draw(photo), options.repeats, wait=wait, clock=options.clock)
    return {"seconds": seconds, "peak_mb": timing.peak_mb(device)}


def compared(turns: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Figures of each variant, with ratios to AnimeGANv2's network computed the same way."""
    rows: dict[str, dict[str, Any]] = {}
    for way in WAYS:
        same = {name: runs for name, runs in turns.items() if VARIANTS[name][1] == way}
        rows |= timing.digest(same, f"animeganv2/{way}")
    return rows


def table(rows: Mapping[str, Mapping[str, Any]], size: int) -> str:
    lines = [f"{f'{size} px':<28}{'ms':>9}{'min ms':>9}{'medians':>10}{'minima':>9}{'peak MB':>9}"]
    for name, row in rows.items():
        ratios = [f"{row[key]:.2f} x" if key in row else "" for key in ("ratio_of_medians", "ratio_of_minima")]
        times = f"{row['median_s'] * 1e3:>9.1f}{row['min_s'] * 1e3:>9.1f}"
        lines.append(f"{name:<28}{times}{ratios[0]:>10}{ratios[1]:>9}{row['peak_mb']:>9,.0f}")
    return "\n".join(lines) + "\n"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 1024], help="of a picture in px")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), help="default: those of the device")
    parser.add_argument("--repeats", type=int, default=3, help="timed, in each round")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2, help="of the CPU")
    parser.add_argument("--device", choices=tuple(CHOSEN), default="cpu")
    parser.add_argument("--clock", choices=tuple(timing.CLOCKS), default="wall", help="cpu: on busy machines, 1 thread")
    parser.add_argument("--quick", action="store_true", help="tiny networks and pictures, once, to try the program")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    parser.add_argument(timing.TURN, choices=list(VARIANTS), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.quick:
        options.sizes, options.rounds, options.repeats = [32], 1, 1
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda must find a GPU; got none. Use --device cpu, or a torch that is built for CUDA.")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    if options.turn is not None:
        timing.tell(turn(options, options.turn))
        return
    names = options.variants or [name for name, (_, way) in VARIANTS.items() if way in CHOSEN[options.device]]
    given = list(sys.argv[1:] if arguments is None else arguments)
    figures: dict[str, Any] = {"machine": timing.machine(torch.device(options.device)), "sizes": {}}
    for size in options.sizes:
        wanted = {name: ENVIRONMENT for name in names}
        turns = timing.take_turns(Path(__file__), wanted, options.rounds, [*given, "--size", str(size)])
        if not turns:
            sys.exit("no variant came to its end")
        rows = compared(turns)
        figures["sizes"][str(size)] = {"variants": rows, "turns": turns}
        sys.stdout.write(table(rows, size))
    hidden = ("json", "turn", "size", "variants")
    figures["settings"] = {key: str(value) for key, value in vars(options).items() if key not in hidden}
    timing.write_json(options.json, figures)


if __name__ == "__main__":
    main()
