"""What makes networks and steps faster leaves their numbers."""

from __future__ import annotations

import copy
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.catalog import MODELS, presets_of
from models.fold import folded
from models.layers.attention import ChannelAttention
from models.layers.blocks import ENOUGH_PIXELS, BatchNorm2d, NarrowConv2d, ResidualBlock, UpBlock, doubling_kernel
from models.motion.config import MotionConfig
from models.motion.generator import Generator
from models.motion.keypoints import Detector
from models.motion.networks import build, debug_config
from training.config import MotionTrainConfig
from training.optim import adam
from training.speed import KEPT_MEMORY, Speed, chosen, keep_memory, prepare_networks

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def seeded(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def stirred(module: nn.Module) -> nn.Module:
    """With statistics and weights of batch normalisation that are not those of a fresh one."""
    for each in module.modules():
        if isinstance(each, nn.BatchNorm2d):
            assert each.running_mean is not None
            assert each.running_var is not None
            for number, value in enumerate((each.running_mean, each.bias)):
                value.data.copy_(0.3 * seeded(tuple(value.shape), number))
            for number, value in enumerate((each.running_var, each.weight)):
                value.data.copy_(0.5 + seeded(tuple(value.shape), number).abs())
    return module


def grads(module: nn.Module, out: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad((out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum(), module.parameters()))


# -- blocks -------------------------------------------------------------------------------------------------------


def test_a_transposed_convolution_doubles_and_convolves() -> None:
    x, weight = seeded((2, 3, 5, 7)).double(), seeded((4, 3, 3, 3), 1).double()
    plain = F.conv2d(F.interpolate(x, scale_factor=2.0), weight, padding=1)
    torch.testing.assert_close(F.conv_transpose2d(x, doubling_kernel(weight), stride=2, padding=1), plain)


@pytest.mark.parametrize("size", [8, 32])
def test_an_up_block_gives_the_plain_one_s_values_and_gradients(size: int) -> None:
    block = UpBlock(6, 4).double()
    x = seeded((2, 6, size, size)).double().requires_grad_()
    plain = F.relu(copy.deepcopy(block.norm)(block.conv(F.interpolate(x, scale_factor=2.0))))
    out = block(x)
    torch.testing.assert_close(out, plain)
    parameters = [block.conv.weight, x]  # the bias goes away in the normalisation
    slope = torch.linspace(-1, 1, out.numel()).view_as(out)
    for mine, theirs in zip(
        torch.autograd.grad(out, parameters, slope), torch.autograd.grad(plain, parameters, slope), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


def test_large_maps_go_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    real = F.conv_transpose2d
    monkeypatch.setattr(F, "conv_transpose2d", lambda *a, **k: (calls.append(1), real(*a, **k))[1])
    block, side = UpBlock(3, 2), int(ENOUGH_PIXELS**0.5)
    block(seeded((1, 3, side, side)))
    assert calls == [1]
    block(seeded((1, 3, side // 2, side // 2)))
    assert calls == [1]


def test_a_narrow_convolution_is_a_convolution() -> None:
    torch.manual_seed(0)
    narrow = NarrowConv2d(5, 3, 7)
    plain = nn.Conv2d(5, 3, 7, padding=3)
    plain.load_state_dict(narrow.state_dict())
    x = seeded((2, 5, 9, 12))
    mine, theirs = narrow(x), plain(x)
    torch.testing.assert_close(mine, theirs, atol=2e-6, rtol=1e-5)
    for a, b in zip(grads(narrow, mine), grads(plain, theirs), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


# -- folding ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", presets_of("motion"))
def test_folded_networks_give_the_same(preset: str) -> None:
    torch.manual_seed(1)
    config = debug_config(**MODELS[preset].model, size_px=64)
    networks = {name: stirred(network).eval() for name, network in build(config).items()}
    detector, generator = networks["keypoint_detector"], networks["generator"]
    assert isinstance(detector, Detector)
    assert isinstance(generator, Generator)
    before = copy.deepcopy(generator.state_dict())
    frames = torch.rand((2, 3, 64, 64), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        wanted, found = detector(frames), folded(detector)(frames)
        points = {
            "source_keypoints": wanted,
            "driving_keypoints": type(wanted)(*(p if p is None else p.flip(0) for p in wanted)),
        }
        made = generator(frames, **points).prediction
        quick = folded(generator)(frames, **points).prediction
    torch.testing.assert_close(found.value, wanted.value, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(quick, made, atol=1e-5, rtol=1e-5)
    assert made.std() > 1e-3
    after = generator.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_what_can_be_folded_is() -> None:
    generator = stirred(build(debug_config())["generator"])
    left = [name for name, each in folded(generator).named_modules() if isinstance(each, BatchNorm2d)]
    assert left == ["bottleneck.r0.norm1"]
    block, attention = folded(ResidualBlock(4)), folded(ChannelAttention(32))
    assert [type(each) for each in (block.norm1, block.norm2, attention.norm)] == [
        BatchNorm2d,
        nn.Identity,
        nn.Identity,
    ]


def test_folded_in_16_bits() -> None:
    torch.manual_seed(0)
    detector = stirred(build(debug_config())["keypoint_detector"]).eval()
    small = folded(detector, bf16=True)
    assert small.get_submodule("kp").weight.dtype == torch.bfloat16
    frames = torch.rand((2, 3, 32, 32), generator=torch.Generator().manual_seed(2))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = small(frames)
    with torch.no_grad():
        wanted = detector(frames)
    assert found.value.dtype == torch.float32
    torch.testing.assert_close(found.value, wanted.value, atol=0.05, rtol=0)


def test_channel_attention_stays_exact_in_16_bits() -> None:
    torch.manual_seed(1)
    detector = stirred(build(debug_config(hourglass_attention="channel"))["keypoint_detector"]).eval()
    frames = torch.rand((2, 3, 32, 32), generator=torch.Generator().manual_seed(2))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = folded(detector, bf16=True)(frames)
    with torch.no_grad():
        torch.testing.assert_close(found.value, detector(frames).value, atol=0.05, rtol=0)


# -- the optimiser ------------------------------------------------------------------------------------------------


def test_fused_adam_is_adam() -> None:
    weights = [seeded((5, 4, 3, 3)), seeded((7,), 1)]
    ends = []
    for fused in (False, True):
        parameters = [nn.Parameter(weight.clone()) for weight in weights]
        optimizer = adam({"all": (parameters, 2e-3)}, (0.5, 0.999), fused=fused)
        for step in range(3):
            for number, parameter in enumerate(parameters):
                parameter.grad = seeded(tuple(parameter.shape), 10 * step + number)
            optimizer.step()
        ends.append([parameter.detach() for parameter in parameters])
        state = optimizer.state_dict()
        optimizer.load_state_dict(state)
        optimizer.step()
    for plain, fused_ in zip(*ends, strict=True):
        torch.testing.assert_close(fused_, plain, atol=1e-6, rtol=1e-6)


# -- the means of a training --------------------------------------------------------------------------------------


def test_what_is_left_open_follows_device_and_precision() -> None:
    assert chosen(MotionTrainConfig(), CPU) == Speed(fused_optimizer=True)
    assert chosen(MotionTrainConfig(precision="bf16"), CPU) == Speed(channels_last=True, fused_optimizer=True)
    assert chosen(MotionTrainConfig(), GPU) == Speed(channels_last=True, fused_optimizer=True)
    said = MotionTrainConfig(precision="bf16", channels_last=False, fused_optimizer=False, compile=True)
    assert chosen(said, GPU) == Speed(compile=True)


def one_step(config: MotionConfig, speed: Speed, device: torch.device = CPU) -> tuple[Tensor, dict[str, Tensor]]:
    """A frame made in train mode, and every gradient."""
    torch.manual_seed(3)
    networks = build(config)
    prepare_networks(networks, speed, device)
    frames = torch.rand((2, 3, config.size_px, config.size_px), generator=torch.Generator().manual_seed(4))
    found = networks["keypoint_detector"](frames)
    made: Tensor = networks["generator"](frames, source_keypoints=found, driving_keypoints=found).prediction
    judged = networks["discriminator"](made) if "discriminator" in networks else []
    (made.square().mean() + sum((one.score.mean() for one in judged), start=made.new_zeros(()))).backward()
    named = ((f"{n}.{key}", p.grad) for n, net in networks.items() for key, p in net.named_parameters())
    return made.detach(), {key: grad for key, grad in named if grad is not None}


@pytest.mark.parametrize("device", [CPU, GPU], ids=["cpu", "gpu"])
@pytest.mark.parametrize("preset", ["fomm", "jam"])
def test_the_order_of_maps_changes_nothing_else(preset: str, device: torch.device) -> None:
    """``device`` only says which modules set the order; the test computes on the CPU."""
    config = debug_config(**MODELS[preset].model)
    made, slopes = one_step(config, Speed())
    quick, mine = one_step(config, Speed(channels_last=True), device)
    torch.testing.assert_close(quick, made, atol=1e-5, rtol=1e-5)
    assert mine.keys() == slopes.keys()
    assert len(mine) > 20
    for key, slope in slopes.items():
        torch.testing.assert_close(mine[key], slope, atol=1e-5, rtol=1e-3, msg=key)
        assert mine[key].is_contiguous(), key


def test_maps_are_put_in_order_and_weights_are_not() -> None:
    generator = build(debug_config())["generator"]
    assert isinstance(generator, Generator)
    prepare_networks({"generator": generator}, Speed(channels_last=True), CPU)
    seen = {}
    for name in ("first.conv", "bottleneck.r0.conv1", "bottleneck.r0.conv2", "final"):
        hook = lambda _, inputs, name=name: seen.update({name: inputs[0]})  # noqa: E731
        generator.get_submodule(name).register_forward_pre_hook(hook)
    generator.bottleneck(generator.encode(torch.rand(1, 3, 32, 32)).features[-1])
    generator.final(torch.rand(1, generator.final.in_channels, 32, 32))
    assert set(seen) == {"first.conv", "bottleneck.r0.conv1", "bottleneck.r0.conv2", "final"}
    for name, maps in seen.items():
        assert maps.is_contiguous(memory_format=torch.channels_last), name
    assert all(parameter.is_contiguous() for parameter in generator.parameters())


def test_only_networks_without_spectral_norm_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, **_: compiled.append(type(self).__name__))
    prepare_networks(build(debug_config(background="affine")), Speed(compile=True), CPU)
    assert sorted(compiled) == ["BackgroundPredictor", "Generator", "KeypointDetector"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="glibc's mallopt")
def test_kept_memory_is_not_given_back() -> None:
    """Pages of tensors, made again and again, that the system has to hand out: few once the memory is kept."""
    program = (
        "import resource, sys, torch\n"
        "from training.speed import keep_memory\n"
        "kept = sys.argv[1] == 'kept' and keep_memory()\n"
        "faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "def step():\n"
        "    maps = [torch.empty(size << 20).fill_(1.0) for size in (9, 10, 11)]\n"
        "for _ in range(5): step()\n"
        "before = faults()\n"
        "for _ in range(5): step()\n"
        "print(kept, faults() - before)\n"
    )
    found, env = {}, {**os.environ, "OMP_NUM_THREADS": "1"}
    for how in ("kept", "given-back"):
        command = [sys.executable, "-c", program, how]
        found[how] = subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout.split()
    assert found["kept"][0] == "True"
    assert int(found["kept"][1]) < 0.5 * int(found["given-back"][1])
    assert set(KEPT_MEMORY) == {"MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_ARENA_MAX"}


def test_another_c_library_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_memory()
