"""The register stage for a system: two champions as one model version with a single ``predict``."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from pipelines.carried import CARRIED, FAMILY_TAG
from pipelines.lineage import git_tags
from pipelines.modelcard import render
from pipelines.params import Params
from pipelines.registry import (
    CHAMPION,
    SERVED_TAG,
    STYLES_TAG,
    Parcel,
    Version,
    find,
    promote,
    register,
    resolve,
    served_as,
    store_of,
)
from pipelines.stage import Paths, only_writer, write_report

METRIC_TAGS = ("metric.name", "metric.better", "metric.value", "metric.untouched", "metric.data")
"""By which versions are compared: those of the model that stylises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemReport:
    """What the stage did; reports/register/<name>.json."""

    name: str
    version: int
    uri: str
    stylist: str
    mover: str
    aliases: tuple[str, ...]
    promoted: bool
    decision: str
    num_bytes: int
    """Of the graphs and styles."""
    seconds: float


def run(name: str, params: Params, paths: Paths) -> SystemReport:
    """Register the champions of a stylist and of a mover as one version under the system's name.

    Raises:
        TrackingError: one of them has no champion, or the store is away or refuses.
    """
    started_s, store, system = time.monotonic(), store_of(params, paths), params.system(name)
    with only_writer(paths.report("register", name)), tempfile.TemporaryDirectory() as scratch:
        stylist, mover = (find(f"models:/{part}@{CHAMPION}", store) for part in (system.stylist, system.mover))
        folders = [resolve(one.uri, store, target=Path(scratch) / one.name) for one in (stylist, mover)]
        files = _gathered(folders[0], folders[1], Path(scratch) / "system")
        opset = params.registration.onnx_opset
        tags = _tags(stylist, mover) | git_tags(paths.root)
        tags |= {FAMILY_TAG: "system", SERVED_TAG: served_as(opset, "system"), "profile": params.profile}
        note = Path(scratch) / "note"
        note.mkdir()
        (note / "parts.json").write_text(json.dumps({"stylist": stylist.uri, "mover": mover.uri}), encoding="utf-8")
        parcel = Parcel(
            name=name,
            run_id=None,
            onnx=files.pop("motion"),
            checkpoint=note,
            card=render(name, tags),
            tags=tags,
            size_px=int(json.loads(mover.tags["config.model"])["size_px"]),
            family="system",
            extras=files,
        )
        version = register(parcel, store)
        promoted, sentence = False, "promotion is switched off (registration.promote)"
        if params.registration.promote:
            decision = promote(name, params, paths)
            promoted, sentence = decision.promoted, decision.sentence
        version = find(version.uri, store)
        report = SystemReport(
            name=name,
            version=version.version,
            uri=version.uri,
            stylist=stylist.uri,
            mover=mover.uri,
            aliases=version.aliases,
            promoted=promoted,
            decision=sentence,
            num_bytes=sum(path.stat().st_size for path in (parcel.onnx, *files.values())),
            seconds=round(time.monotonic() - started_s, 3),
        )
        write_report(paths.report("register", name), report)
    return report


def _gathered(stylist: Path, mover: Path, folder: Path) -> dict[str, Path]:
    """The files of both models by the names under which the system's code opens them."""
    folder.mkdir()
    made = {}
    for name, source in (
        ("dualstyle", stylist / "artifacts" / "dualstyle.onnx"),
        ("encoder", stylist / "artifacts" / "encoder.onnx"),
        ("styles", stylist / "artifacts" / "styles.npz"),
        ("motion", mover / "artifacts" / "motion.onnx"),
        ("style_code", CARRIED["dualstyle"].code),
        ("motion_code", CARRIED["motion"].code),
    ):
        made[name] = folder / source.name
        shutil.copyfile(source, made[name])
    return made


def _tags(stylist: Version, mover: Version) -> dict[str, str]:
    both = "".join(one.tags["weights.sha256"] for one in (stylist, mover))
    return {
        "weights.sha256": hashlib.sha256(both.encode()).hexdigest(),
        "system.stylist": stylist.uri,
        "system.mover": mover.uri,
        "training.step": stylist.tags.get("training.step", "0"),
        "data.licences": "; ".join(one.tags.get("data.licences", "") for one in (stylist, mover)),
        **{tag: stylist.tags[tag] for tag in (*METRIC_TAGS, STYLES_TAG) if tag in stylist.tags},
    }
