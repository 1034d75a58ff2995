"""What the benchmarks of training and animation share: turns of processes, ratios, machines, made frames."""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

TURN = "--turn"
"""The option under which a benchmark runs one variant once and writes its figures."""
CLOCKS: Mapping[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
"""``cpu`` counts this process alone: what is left to compare by where others use the machine too, with one thread."""
RESULT = "RESULT "
"""What the line with a turn's figures begins with."""


def take_turns(script: Path, variants: Mapping[str, Mapping[str, str]], rounds: int, options: Sequence[str]) -> Any:
    """Let each variant run in a process of its own, one after another, round after round.

    A process each, because memory allocation, its peak and a graph's compiler belong to a process; in turns, because
    other programs disturb a machine for minutes rather than for seconds.

    Args:
        script: the benchmark.
        variants: name -> environment that its process gets besides.
        rounds: how often each has its turn.
        options: of the command line, beside the turn's.

    Returns:
        Name -> the figures of each turn that came to its end.
    """
    figures: dict[str, list[dict[str, Any]]] = {name: [] for name in variants}
    order = list(variants)
    for number in range(rounds):
        for name in order:
            load = os.getloadavg()[0]
            try:
                figures[name].append(_turn(script, name, variants[name], options) | {"load_before": load})
            except RuntimeError as error:
                sys.stderr.write(f"{name}: {error}\n")
                order = [other for other in order if other != name]
                continue
            shown = figures[name][-1]
            sys.stderr.write(f"round {number + 1}, {name}: {min(shown['seconds']):.3f} s, load {load:.1f}\n")
        order = order[1:] + order[:1]  # so that nobody always follows the same neighbour
    return {name: turns for name, turns in figures.items() if turns}


def _turn(script: Path, name: str, environment: Mapping[str, str], options: Sequence[str]) -> dict[str, Any]:
    command = [sys.executable, str(script), *options, TURN, name]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith(RESULT)]
    if done.returncode or not lines:
        reason = done.stderr.strip().splitlines() or ["no figures"]
        raise RuntimeError(f"left out: {reason[-1]}")
    figures: dict[str, Any] = json.loads(lines[-1].removeprefix(RESULT))
    return figures


def tell(figures: Mapping[str, Any]) -> None:
    """Write a turn's figures for `take_turns`."""
    sys.stdout.write(RESULT + json.dumps(dict(figures)) + "\n")


def timed(
    once: Callable[[], Any], count: int, *, wait: Callable[[], None] = lambda: None, clock: str = "wall"
) -> list[float]:
    """Seconds of each of ``count`` calls; ``wait`` lets the device come to its end."""
    now, seconds = CLOCKS[clock], []
    for _ in range(count):
        began_s = now()
        once()
        wait()
        seconds.append(now() - began_s)
    return seconds


def step_marker(compile_mode: str | None) -> Callable[[], None]:
    """What has to be called before every step: CUDA graphs may then write over the last step's tensors."""
    if compile_mode != "reduce-overhead":
        return lambda: None  # the marker itself would import the compiler
    import torch

    return torch.compiler.cudagraph_mark_step_begin


def digest(turns: Mapping[str, Sequence[Mapping[str, Any]]], base: str) -> dict[str, dict[str, Any]]:
    """Median and least time of each variant over all turns, and how many times faster than ``base`` it is.

    ``ratio_of_rounds`` compares medians within a round, whose neighbours shared the machine's state.
    """
    medians = {name: [statistics.median(turn["seconds"]) for turn in runs] for name, runs in turns.items()}
    rows = {}
    for name, runs in turns.items():
        seconds = [second for turn in runs for second in turn["seconds"]]
        rows[name] = {
            "median_s": statistics.median(seconds),
            "min_s": min(seconds),
            "peak_mb": max(turn["peak_mb"] for turn in runs),
            "num_timed": len(seconds),
        }
    for name, row in rows.items():
        if base in rows:
            row["ratio_of_medians"] = rows[base]["median_s"] / row["median_s"]
            row["ratio_of_minima"] = rows[base]["min_s"] / row["min_s"]
            row["ratio_of_rounds"] = [a / b for a, b in zip(medians[base], medians[name], strict=False)]
    return rows


def peak_mb(device: Any = None) -> float:
    """The most memory that this process has held: of the GPU where it computes on one, else resident."""
    if device is not None and device.type == "cuda":
        import torch

        return float(torch.cuda.max_memory_allocated(device)) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def machine(device: Any) -> dict[str, Any]:
    """Where the figures come from."""
    import torch

    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "cpu": _cpu(),
        "cpus": os.cpu_count(),
        "gpu": gpu,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "load_average": os.getloadavg(),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def made_frames(count: int, size_px: int, *, seed: int) -> Any:
    """Smooth random frames, uint8, (count, 3, S, S)."""
    import torch

    coarse = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    fine = torch.nn.functional.interpolate(coarse, size=(size_px, size_px), mode="bicubic", align_corners=False)
    return fine.clamp(0, 1).mul(255).round().to(torch.uint8)


def write_json(path: Path | None, result: Mapping[str, Any]) -> None:
    """Write the figures, where a file is asked for."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(dict(result), indent=2) + "\n")
