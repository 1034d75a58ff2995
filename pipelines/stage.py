"""What every stage shares: where its files are, its lock, its atomic outputs and its report."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

import filelock

from models.errors import EnvironmentProblem, must


@dataclass(frozen=True, slots=True)
class Paths:
    """Where everything lies, below the project's root."""

    root: Path = Path()
    apart: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Name of a paper's data set or experiment -> folder of its reports below reports/; `Params.report_folders`."""

    def raw(self, dataset: str) -> Path:
        """Media as fetched, and the download ledger."""
        return self.root / "data" / "raw" / dataset

    def cut(self, dataset: str, makes: str) -> Path:
        """Clips or stills with their manifest; ``makes`` is ``clips`` or ``stills``."""
        return self.root / "data" / makes / dataset

    def shards(self, dataset: str) -> Path:
        """Parquet shards and their index."""
        return self.root / "data" / "shards" / dataset

    def run(self, experiment: str) -> Path:
        """A training's own folder: checkpoints, metrics, pictures, outbox. Outlives failed stages."""
        return self.root / "runs" / experiment

    def trained(self, experiment: str) -> Path:
        """The exported final model of an experiment."""
        return self.root / "data" / "trained" / experiment

    def codes(self, system: str) -> Path:
        """The style codes that destylisation found for a system's style pictures."""
        return self.root / "data" / "codes" / system

    def refined(self, system: str) -> Path:
        """Those codes, fitted to the system's trained DualStyleGAN: what its styles are."""
        return self.root / "data" / "refined" / system

    def report(self, stage: str, name: str) -> Path:
        """A stage's report."""
        if name in self.apart:
            return self.root / "reports" / self.apart[name] / f"{stage}.json"
        return self.root / "reports" / stage / f"{name}.json"

    def pictures(self, stage: str, name: str) -> Path:
        """Folder of a stage's pictures."""
        if name in self.apart:
            return self.root / "reports" / self.apart[name] / stage
        return self.root / "reports" / stage / name

    @property
    def weights(self) -> Path:
        """Pretrained files that can't be had from a package."""
        return self.root / "weights"

    @property
    def database(self) -> Path:
        """The default tracking store."""
        return self.root / "mlflow.db"


def as_json(report: Any) -> dict[str, Any]:
    """A report dataclass as plain JSON values."""
    if not is_dataclass(report) or isinstance(report, type):
        raise TypeError(f"a report must be a dataclass instance; got {type(report).__name__}")
    plain: dict[str, Any] = json.loads(json.dumps(asdict(report), default=str))
    return plain


def write_report(path: Path, report: Any) -> None:
    """Write a report dataclass as JSON, atomically."""
    write_text(path, json.dumps(as_json(report), indent=2, sort_keys=True) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file beside itself and rename it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def fresh_folder(target: Path) -> Iterator[Path]:
    """A folder to fill, renamed to ``target`` when the block ends well; ``target`` keeps its content otherwise."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for stale in target.parent.glob(f".{target.name}.making-*"):  # left by a killed stage; we hold its lock
        shutil.rmtree(stale, ignore_errors=True)
    making = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.making-"))
    try:
        yield making
        making.chmod(0o755)
        old = target.parent / f".{target.name}.making-old"
        if target.exists():
            os.replace(target, old)
        os.replace(making, target)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(making, ignore_errors=True)


@contextmanager
def only_writer(output: Path) -> Iterator[None]:
    """Hold the output's lock: a killed ``dvc repro`` leaves its stage alive, and the next would start a second one.

    Raises:
        EnvironmentProblem: another process holds the lock, or the place can't be written.
    """
    lock = output.parent / f".{output.name}.lock"
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(lock, timeout=0):
            yield
    except filelock.Timeout:
        fix = "Wait for the other process, or end it by its id"
        raise EnvironmentProblem(must(str(output), "have one writer", "another process writing it", fix)) from None
    except PermissionError as error:
        fix = "Choose a writable folder, or change its owner"
        raise EnvironmentProblem(must(str(output), "be writable", str(error), fix)) from None
