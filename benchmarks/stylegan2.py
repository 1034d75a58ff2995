"""Milliseconds a face of StyleGAN2's and of DualStyleGAN's generator, beside the published way of computing them.

    python benchmarks/stylegan2.py --json stylegan2.json

Codes and weights are random: right for times. ``reference`` computes as the published code does without its CUDA
extensions: weights of each sample's own in a grouped convolution, then a blur, then noise, bias and activation, each by
itself. Each variant is a network and a way to compute it, has a process of its own, and they take turns, round after
round. ``--clock cpu`` with one thread is what is left to compare by on a machine that others use too. The ONNX variant
needs onnxscript and onnxruntime, and is left out with a line where those are missing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MethodType
from typing import Any, TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import timing
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.export_face import export_generator as export_dualstyle
from models.style.dualstylegan import AdaptiveNorm, DualStyleGenerator, ModRes, default_weights, modulative_blocks
from models.style.face_config import FaceConfig
from models.style.stylegan2.build import debug_config
from models.style.stylegan2.export import export_generator
from models.style.stylegan2.generator import Generator
from models.style.stylegan2.inference import prepared
from models.style.stylegan2.layers import Upsample
from models.style.stylegan2.modulated import ModulatedConv, StyledConv, ToRGB

Inputs = tuple[Tensor, ...]
Draw = Callable[[], Tensor]
N = TypeVar("N", bound=nn.Module)
WAYS = ("reference", "eager", "channels-last", "bf16", "onnx", "compile")
CHOSEN = {"cpu": WAYS[:5], "cuda": WAYS[:4]}
ENVIRONMENT = {"GOMP_SPINCOUNT": "1000", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}
"""glibc keeps freed memory, as `pipelines.style_engines.TorchStyle` asks it to."""


def made_generator(options: argparse.Namespace) -> tuple[nn.Module, Inputs]:
    """StyleGAN2's generator with random weights and a batch of codes; the same for every way."""
    config = debug_config() if options.quick else FaceConfig(size_px=options.size)
    torch.manual_seed(0)
    generator = noisy(Generator(config))
    return generator, (torch.randn(options.batch, config.style_dim),)


def made_dualstyle(options: argparse.Namespace) -> tuple[nn.Module, Inputs]:
    """DualStyleGAN's generator with random weights that tell, codes in Z+ of both paths, the published weights."""
    config = debug_config() if options.quick else FaceConfig(size_px=options.size)
    torch.manual_seed(0)
    network = noisy(DualStyleGenerator(config))
    for block in modulative_blocks(network):
        for conv in (block.conv, block.conv2):
            nn.init.normal_(conv[0].weight)
    codes = torch.randn(2, options.batch, config.num_styles, config.style_dim)
    weights = default_weights(config).expand(options.batch, -1).contiguous()
    return Fed(network), (*codes, weights, torch.tensor(0.75))


class Fed(nn.Module):
    """DualStyleGAN's generator, all of whose inputs are fed by place, as its graph's are."""

    def __init__(self, network: DualStyleGenerator) -> None:
        super().__init__()
        self.network = network

    def forward(self, intrinsic: Tensor, extrinsic: Tensor, weights: Tensor, psi: Tensor) -> Tensor:
        made: Tensor = self.network(intrinsic, extrinsic, weights, psi=float(psi))
        return made


def noisy(network: N) -> N:
    for module in network.modules():
        if isinstance(module, StyledConv):
            nn.init.constant_(module.noise.weight, 0.1)
    return network


NETWORKS: dict[str, Callable[[argparse.Namespace], tuple[nn.Module, Inputs]]] = {
    "stylegan2": made_generator,
    "dualstylegan": made_dualstyle,
}
EXPORTS: dict[str, Callable[[Any, Path], None]] = {
    "stylegan2": export_generator,
    "dualstylegan": lambda fed, path: export_dualstyle(fed.network, path),
}
VARIANTS = {f"{network}/{way}": (network, way) for network in NETWORKS for way in WAYS}


# ---- the published way


def published_convolution(conv: ModulatedConv, x: Tensor, style: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    weight = conv.scale * conv.weight[None] * conv.modulation(style).view(batch, 1, channels, 1, 1)
    if conv.demodulate:
        weight = weight * torch.rsqrt(weight.pow(2).sum([2, 3, 4]) + 1e-8)[:, :, None, None, None]
    x = x.reshape(1, batch * channels, height, width)
    if conv.blur is None:
        made = F.conv2d(x, weight.flatten(0, 1), padding=conv.padding, groups=batch)
        return made.view(batch, -1, height, width)
    own = weight.transpose(1, 2).reshape(batch * channels, -1, *weight.shape[3:])
    made = F.conv_transpose2d(x, own, stride=2, groups=batch)
    return published_filter(made.view(batch, -1, *made.shape[2:]), conv.blur.kernel, (1, 1))


def published_filter(x: Tensor, kernel: Tensor, padding: tuple[int, int], up: int = 1) -> Tensor:
    """Every channel as a picture of its own; zeros put between pixels where it is doubled."""
    batch, channels, height, width = x.shape
    planes = F.pad(x.reshape(-1, height, 1, width, 1), (0, up - 1, 0, 0, 0, up - 1))
    planes = F.pad(planes.reshape(-1, 1, height * up, width * up), (*padding, *padding))
    made = F.conv2d(planes, kernel.flip(0, 1)[None, None])
    return made.view(batch, channels, *made.shape[2:])


def published_styled(self: StyledConv, x: Tensor, style: Tensor, noise: Tensor) -> Tensor:
    made = published_convolution(self.conv, x, style)
    made = made + self.noise.weight * noise
    return F.leaky_relu(made + self.activate.bias.view(1, -1, 1, 1), negative_slope=0.2) * 2**0.5


def published_colours(self: ToRGB, x: Tensor, style: Tensor, below: Tensor | None = None) -> Tensor:
    made = published_convolution(self.conv, x, style) + self.bias
    if below is None or self.upsample is None:
        return made
    return made + published_filter(below, self.upsample.kernel, (2, 1), up=2)


def published_residual(self: ModRes, x: Tensor, style: Tensor) -> Tensor:
    for conv, norm in ((self.conv, self.norm), (self.conv2, self.norm2)):
        level = published_norm(norm, x, style)
        made = F.conv2d(level, conv[0].weight * conv[0].scale, padding=1)
        x = F.leaky_relu(made + conv[1].bias.view(1, -1, 1, 1), negative_slope=0.2) * 2**0.5
    return x


def published_norm(norm: AdaptiveNorm, x: Tensor, style: Tensor) -> Tensor:
    gamma, beta = norm.style(style).unsqueeze(2).unsqueeze(3).chunk(2, 1)
    return gamma * F.instance_norm(x) + beta


def as_published(network: nn.Module) -> nn.Module:
    """The network itself, whose layers compute as the published ones do."""
    ways = {StyledConv: published_styled, ToRGB: published_colours, ModRes: published_residual}
    for module in network.modules():
        if type(module) in ways:
            module.forward = MethodType(ways[type(module)], module)  # type: ignore[method-assign]
    assert any(isinstance(module, Upsample) for module in network.modules()), "a generator is meant"
    return network


# ---- ways


def in_torch(network: nn.Module, inputs: Inputs, way: str, device: torch.device) -> Draw:
    network = network.to(device).eval().requires_grad_(False)
    if way == "reference":
        network = as_published(network)
    elif way != "eager":
        network = prepared(network, bf16=way == "bf16")
    if way == "compile":
        network = torch.compile(network)  # type: ignore[assignment]
    given = [part.to(device) for part in inputs]

    @torch.inference_mode()
    def draw() -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=way == "bf16"):
            made: Tensor = network(*given)
        return made

    return draw


def in_onnx(network: nn.Module, inputs: Inputs, name: str, threads: int) -> Draw:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    with tempfile.TemporaryDirectory(prefix="stylegan2-") as folder:
        path = Path(folder) / "network.onnx"
        EXPORTS[name](network.eval(), path)
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feeds = {port.name: part.numpy() for port, part in zip(session.get_inputs(), inputs, strict=True)}
    return lambda: torch.from_numpy(session.run(None, feeds)[0])


def drawer(options: argparse.Namespace, name: str) -> Draw:
    """What draws a batch as the variant does."""
    network_name, way = VARIANTS[name]
    network, inputs = NETWORKS[network_name](options)
    if way == "onnx":
        return in_onnx(network, inputs, network_name, options.threads)
    return in_torch(network, inputs, way, torch.device(options.device))


def turn(options: argparse.Namespace, name: str) -> dict[str, Any]:
    """Run one variant: seconds a batch, and the peak of memory."""
    device = torch.device(options.device)
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    torch.backends.cudnn.benchmark = True
    draw = drawer(options, name)
    wait = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
    for _ in range(2):
        draw()
    wait()
    seconds = timing.timed(draw, options.repeats, wait=wait, clock=options.clock)
    return {"seconds": seconds, "peak_mb": timing.peak_mb(device)}


def compared(turns: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Figures of each variant, with ratios to the same network's reference."""
    rows: dict[str, dict[str, Any]] = {}
    for network in NETWORKS:
        same = {name: runs for name, runs in turns.items() if VARIANTS[name][0] == network}
        rows |= timing.digest(same, f"{network}/reference")
    return rows


def table(rows: Mapping[str, Mapping[str, Any]], options: argparse.Namespace) -> str:
    title = f"{options.size} px, batch {options.batch}"
    lines = [f"{title:<28}{'ms':>9}{'min ms':>9}{'medians':>10}{'minima':>9}{'peak MB':>9}"]
    for name, row in rows.items():
        ratios = [f"{row[key]:.2f} x" if key in row else "" for key in ("ratio_of_medians", "ratio_of_minima")]
        times = f"{row['median_s'] * 1e3:>9.1f}{row['min_s'] * 1e3:>9.1f}"
        lines.append(f"{name:<28}{times}{ratios[0]:>10}{ratios[1]:>9}{row['peak_mb']:>9,.0f}")
    return "\n".join(lines) + "\n"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256, help="of a face in px: a power of two, 32 to 1024")
    parser.add_argument("--batch", type=int, default=1, help="faces at once")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), help="default: those of the device")
    parser.add_argument("--repeats", type=int, default=3, help="timed, in each round")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2, help="of the CPU")
    parser.add_argument("--device", choices=tuple(CHOSEN), default="cpu")
    parser.add_argument("--clock", choices=tuple(timing.CLOCKS), default="wall", help="cpu: on busy machines, 1 thread")
    parser.add_argument("--quick", action="store_true", help="a tiny network, once, to try the program")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument(timing.TURN, choices=list(VARIANTS), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.quick:
        options.size, options.rounds, options.repeats = 32, 1, 1
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
    turns = timing.take_turns(Path(__file__), {name: ENVIRONMENT for name in names}, options.rounds, given)
    if not turns:
        sys.exit("no variant came to its end")
    rows = compared(turns)
    sys.stdout.write(table(rows, options))
    hidden = ("json", "turn", "variants")
    settings = {key: str(value) for key, value in vars(options).items() if key not in hidden}
    machine = timing.machine(torch.device(options.device))
    timing.write_json(options.json, {"machine": machine, "settings": settings, "variants": rows, "turns": turns})


if __name__ == "__main__":
    main()
