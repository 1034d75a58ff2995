"""How fast clips are cut, and in how much memory.

    python benchmarks/crop.py --out reports/benchmarks/crop.json
    python benchmarks/crop.py --quick --part metadata

- metadata: frames/s cut by a metadata row over the whole video, beside bare decoding of the same file
- detection: faces looked for on every frame, beside every k-th frame: cost, and how far the boxes agree
- memory: peak of the process and its children on a long video, beside a short one
- workers: the cut stage on Ray Data with two workers, beside one

What is compared takes turns on the same cores, round after round, and ratios are taken within a round, because machines
are noisy. The load of the machine stands beside the figures.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
import psutil

from preprocessing.boxes import Box, iou
from preprocessing.config import CutRule, DatasetConfig
from preprocessing.crop import ItemResult, cut_item
from preprocessing.ledger import LedgerRow
from preprocessing.metadata import Segment
from preprocessing.segments import cut_segments
from preprocessing.track import Tube, follow
from preprocessing.video import Limits, probe, read_clip, read_frames
from preprocessing.video_decord import DecordError, DecordVideo
from preprocessing.video_ffmpeg import executable

SAMPLES = Path(__file__).resolve().parents[1] / "samples"
HEIGHTS = {"360p": 360, "720p": 720, "1080p": 1080}
FACES = ("woman-expressions.mp4", "man-smile.mp4", "man-then-title-card.mov")
PARTS = ("metadata", "detection", "memory", "workers")
NO_LIMIT = Limits(max_frames=10**7, timeout_s=1e5)


def config_of(cut: CutRule, **changes: Any) -> DatasetConfig:
    small = {"min_side_px": 16, "min_frames": 16, "max_source_frames": NO_LIMIT.max_frames, "timeout_s": 1e5}
    return DatasetConfig(kind="faces", source=".", cut=cut, **{**small, **changes})


def ffmpeg(*arguments: object) -> None:
    subprocess.run([executable(), "-v", "error", "-nostdin", "-y", *map(str, arguments)], check=True)


def digest(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


# by metadata


def metadata_media(folder: Path, *, quick: bool) -> dict[str, Path]:
    """The samples as they are, and one of them at each height as a server would offer it."""
    media = {path.name: path for kind in ("faces", "bodies") for path in sorted((SAMPLES / kind).iterdir())}
    heights = {"360p": 360} if quick else HEIGHTS
    sources = {"woman": SAMPLES / "faces" / FACES[0]} | ({} if quick else {"walk": SAMPLES / "bodies" / "walk.mp4"})
    for name, height in heights.items():
        for stem, source in sources.items():
            path = folder / f"{stem}-{name}.mp4"
            seconds = ("-t", 2) if quick else ()
            coded = ("-c:v", "libx264", "-preset", "medium", "-crf", 23, "-g", 250, "-pix_fmt", "yuv420p", "-an")
            ffmpeg("-i", source, *seconds, "-vf", f"scale=-2:{height}", *coded, path)
            media[path.name] = path
    return {name: media[name] for name in ("man-smile.mp4", "woman-360p.mp4")} if quick else media


def segment_of(path: Path) -> Segment:
    """A face-sized box over the whole video."""
    info = probe(path, limits=NO_LIMIT)
    side = 0.6 * min(info.width, info.height) // 1
    left, top = (info.width - side) // 2, (info.height - side) // 2
    box = Box(left, top, left + side, top + side)
    return Segment(
        row=2,
        video_id=path.stem,
        start=0,
        end=10**6,
        box=box,
        fps=info.fps,
        width=info.width,
        height=info.height,
        split="train",
        identity="one",
    )


def cut_by_metadata(path: Path, segment: Segment) -> int:
    """Frames in the clips."""
    with tempfile.TemporaryDirectory(prefix="cut-") as folder:
        config = config_of("metadata", max_frames=10**6)
        return num_cut(cut_segments(row_of(path), path, config, Path(folder), [segment]))


def row_of(path: Path) -> LedgerRow:
    return LedgerRow(item=path.name, origin=path.name, state="kept")


def num_cut(result: ItemResult) -> int:
    if result.row.state != "kept":
        raise SystemExit(f"{result.row.item} was rejected: {result.row.detail}")
    return sum(clip.num_frames for clip in result.clips)


def decode(path: Path) -> int:
    return sum(len(batch) for batch in read_frames(path, limits=NO_LIMIT))


def decode_ahead(path: Path) -> int:
    """By decord, which the reader takes for short videos only, because it decodes ahead without bounds."""
    with contextlib.suppress(DecordError), contextlib.closing(DecordVideo(path)) as video:
        return sum(len(batch) for batch in video.batches(32))
    return 0


def cpu_seconds() -> float:
    """Of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def rates(work: Callable[[], int]) -> tuple[float, float]:
    """Frames per second, and per second of a processor."""
    start, used = time.perf_counter(), cpu_seconds()
    count = work()
    return count / (time.perf_counter() - start), count / max(cpu_seconds() - used, 1e-9)


@contextlib.contextmanager
def cores(number: int) -> Iterator[None]:
    """This process, and the children that it starts, on so many cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before, reverse=True)[:number])
    with contextlib.ExitStack() as stack:
        stack.callback(os.sched_setaffinity, 0, before)
        yield


def by_metadata(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    results = []
    with tempfile.TemporaryDirectory(prefix="crop-") as folder, cores(1):
        for name, path in metadata_media(Path(folder), quick=arguments.quick).items():
            segment = segment_of(path)
            tasks = {"cut": functools.partial(cut_by_metadata, path, segment)}
            tasks |= {"decode": functools.partial(decode, path), "decord": functools.partial(decode_ahead, path)}
            rounds = []
            for number in range(arguments.rounds):
                order = list(tasks) if number % 2 else list(tasks)[::-1]
                rounds.append({task: rates(tasks[task]) for task in order})
            size, info = f"{segment.width}x{segment.height}", probe(path, limits=NO_LIMIT)
            facts = {"name": name, "size": size, "num_frames": info.num_frames, "decoder": info.decoder}
            results.append({**facts, **compared(rounds)})
    return results


def compared(rounds: list[dict[str, tuple[float, float]]]) -> dict[str, Any]:
    """The ratio is to the faster way of decoding in each round."""
    best = {task: max(row[task][0] for row in rounds) for task in rounds[0]}
    return {
        "frames_per_s": {task: statistics.median(row[task][0] for row in rounds) for task in rounds[0]},
        "best_frames_per_s": best,
        "ratio": digest([row["cut"][0] / max(row["decode"][0], row["decord"][0]) for row in rounds]),
        "ratio_of_best": best["cut"] / max(best["decode"], best["decord"]),
        "cpu_ratio": digest([row["cut"][1] / max(row["decode"][1], row["decord"][1]) for row in rounds]),
    }


# by detection


def by_detection(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Costs are of looking alone: the frames are decoded before."""
    results = []
    with cores(1):
        for name in FACES[1:2] if arguments.quick else FACES:
            frames, _ = read_clip(SAMPLES / "faces" / name)
            follow([frames[:2]], config_of("detect"))  # the detector is loaded
            tubes: dict[int, list[Tube]] = {}
            rounds = []
            for number in range(arguments.rounds):
                seconds = {}
                for every in (1, arguments.every) if number % 2 else (arguments.every, 1):
                    used = cpu_seconds()
                    tubes[every] = follow([frames], config_of("detect", detect_every=every))
                    seconds[every] = cpu_seconds() - used
                rounds.append(seconds)
            cost = {str(every): 1000 * min(row[every] for row in rounds) / len(frames) for every in rounds[0]}
            ratio = digest([row[arguments.every] / row[1] for row in rounds])
            boxes = agreement(tubes[1], tubes[arguments.every], len(frames))
            results.append(
                {"name": name, "every": arguments.every, "cpu_ms_per_frame": cost, "cost_ratio": ratio, **boxes}
            )
    return results


def agreement(exact: Sequence[Tube], quick: Sequence[Tube], num_frames: int) -> dict[str, Any]:
    """How far the boxes of two ways agree, frame by frame; a box that only one way has counts 0."""
    overlaps, alone = [], 0
    for frame in range(num_frames):
        wanted, found = boxes_at(exact, frame), boxes_at(quick, frame)
        for box in wanted:
            best = max(found, key=lambda other: iou(other, box), default=None)
            overlaps.append(iou(best, box) if best is not None else 0.0)
            if best is not None and overlaps[-1] > 0:
                found.remove(best)
        alone += len(found)
    return {
        "mean_iou": float(np.mean(overlaps)) if overlaps else 0.0,
        "lowest_iou": float(np.min(overlaps)) if overlaps else 0.0,
        "boxes": len(overlaps),
        "missed_boxes": sum(value == 0 for value in overlaps),
        "extra_boxes": alone,
    }


def boxes_at(tubes: Sequence[Tube], frame: int) -> list[Box]:
    return [tube.box_at(frame) for tube in tubes if tube.start_frame <= frame < tube.end_frame]


# memory


def memory(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    results = []
    short, long = (10, 30) if arguments.quick else (60, 3600)
    source = SAMPLES / "faces" / FACES[0]
    with tempfile.TemporaryDirectory(prefix="crop-") as folder:
        lengths = {seconds: lengthened(source, Path(folder) / f"{seconds}.mp4", seconds) for seconds in (short, long)}
        for way in ("metadata", "detect"):
            peaks = {seconds: peak_mb(way, path) for seconds, path in lengths.items()}
            results.append(
                {
                    "way": way,
                    "seconds_of_video": [short, long],
                    "peak_mb": [peaks[short][0], peaks[long][0]],
                    "difference_mb": peaks[long][0] - peaks[short][0],
                    "seconds_of_work": [peaks[short][1], peaks[long][1]],
                }
            )
    return results


def lengthened(source: Path, path: Path, seconds: int) -> Path:
    """A sample again and again, not encoded again."""
    ffmpeg("-stream_loop", -1, "-i", source, "-t", seconds, "-c:v", "copy", "-an", path)
    return path


def peak_mb(way: str, path: Path) -> tuple[float, float]:
    """Peak of resident memory, in MiB, of a fresh process and its children, and the seconds that they took."""
    command = [sys.executable, str(Path(__file__).resolve()), "--child", way, str(path)]
    start, largest = time.perf_counter(), 0
    with subprocess.Popen(command) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            largest = max(largest, tree_bytes(watched))
            time.sleep(0.02)
    if process.returncode != 0:
        raise SystemExit(f"cutting {path.name} by {way} failed")
    return largest / 2**20, time.perf_counter() - start


def tree_bytes(process: psutil.Process) -> int:
    try:
        return sum(member.memory_info().rss for member in (process, *process.children(recursive=True)))
    except psutil.NoSuchProcess:
        return 0


def child(way: str, path: Path) -> None:
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory(prefix="cut-") as folder:
        if way == "metadata":
            cut_by_metadata(path, segment_of(path))
        else:
            num_cut(cut_item(row_of(path), path, config_of("detect"), Path(folder)))


# workers


def workers(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The stage's own seconds, without the start of Ray: a worker on one core, two workers on two.

    A worker's ffmpeg children would else use the core that the second worker is to have.
    """
    rounds = []
    num_copies, num_rounds = (2, 1) if arguments.quick else (arguments.copies, max(1, arguments.rounds // 2))
    with tempfile.TemporaryDirectory(prefix="crop-") as folder:
        source = Path(folder) / "source"
        source.mkdir()
        for number in range(num_copies):  # copies that are not the same file
            sample = SAMPLES / "faces" / FACES[1 if arguments.quick else 0]
            ffmpeg("-i", sample, "-c", "copy", "-metadata", f"comment={number}", source / f"copy{number}.mp4")
        for number in range(num_rounds):
            order = (1, 2) if number % 2 else (2, 1)
            rounds.append({str(count): stage_seconds(source, Path(folder) / "work", count) for count in order})
    seconds = {key: [row[key] for row in rounds] for key in ("1", "2")}
    return [{"items": num_copies, "seconds": seconds, "speed_up": digest([row["1"] / row["2"] for row in rounds])}]


def stage_seconds(source: Path, project: Path, num_cpus: int) -> float:
    from pipelines import crop, download
    from pipelines.params import parse
    from pipelines.stage import Paths

    shutil.rmtree(project, ignore_errors=True)
    settings = {"kind": "faces", "source": str(source), "split": "time", "min_side_px": 16, "min_frames": 16}
    tree = {"profile": "p", "profiles": {"p": {}}, "datasets": {"copies": settings}}
    params, paths = parse({**tree, "cluster": {"num_cpus": num_cpus}}), Paths(project)
    download.run("copies", params, paths)
    with cores(num_cpus):
        return crop.run("copies", params, paths).seconds


# telling


def table(part: str, rows: list[dict[str, Any]], load: Sequence[float]) -> str:
    told = {"metadata": told_metadata, "detection": told_detection, "memory": told_memory, "workers": told_workers}
    title = f"{part} (load {load[0]:.1f} before, {load[1]:.1f} after)"
    return "\n".join([title, *(f"  {line}" for row in rows for line in told[part](row))]) + "\n\n"


def told_metadata(row: dict[str, Any]) -> list[str]:
    rate, ratio = row["frames_per_s"], row["ratio"]
    span = f"{ratio['lowest']:.2f} to {ratio['highest']:.2f}; of best {row['ratio_of_best']:.2f}"
    speeds = "  ".join(f"{task} {rate[task]:5.0f}" for task in ("cut", "decode", "decord"))
    ratios = f"ratio {ratio['median']:.2f} ({span})  cpu {row['cpu_ratio']['median']:.2f}"
    return [f"{row['name']:<26}{row['size']:>10}  frames/s: {speeds}  {ratios}"]


def told_detection(row: dict[str, Any]) -> list[str]:
    cost, ratio = row["cpu_ms_per_frame"], row["cost_ratio"]
    costs = "  ".join(f"every {every}: {value:.2f} ms/frame" for every, value in sorted(cost.items()))
    boxes = f"missed {row['missed_boxes']}, extra {row['extra_boxes']} of {row['boxes']}"
    return [f"{row['name']:<26}{costs}  cost {ratio['median']:.3f}  mean IoU {row['mean_iou']:.3f}  {boxes}"]


def told_memory(row: dict[str, Any]) -> list[str]:
    lines = zip(row["seconds_of_video"], row["peak_mb"], row["seconds_of_work"], strict=True)
    each = "  ".join(f"{video} s: {peak:.0f} MB in {work:.0f} s" for video, peak, work in lines)
    return [f"{row['way']:<12}{each}  difference {row['difference_mb']:.0f} MB"]


def told_workers(row: dict[str, Any]) -> list[str]:
    ratio, each = row["speed_up"], "  ".join(f"{key} workers {min(row['seconds'][key]):.1f} s" for key in ("1", "2"))
    return [f"{row['items']} items  {each}  {ratio['median']:.2f} x ({ratio['lowest']:.2f} to {ratio['highest']:.2f})"]


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, action="append", help="only this one; may be repeated")
    parser.add_argument("--quick", action="store_true", help="small media, to see that it works")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--every", type=int, default=8, help="detection looks at every k-th frame")
    parser.add_argument("--copies", type=int, default=12, help="items for the workers")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse_arguments(arguments)
    cv2.setNumThreads(1)
    if options.child:
        child(options.child[0], Path(options.child[1]))
        return
    options.rounds = min(options.rounds, 1) if options.quick else options.rounds
    measures = {"metadata": by_metadata, "detection": by_detection, "memory": memory, "workers": workers}
    figures: dict[str, Any] = {"cpus": os.cpu_count(), "machine": platform.machine(), "rounds": options.rounds}
    for part in options.part or PARTS:
        before, rows, after = os.getloadavg()[0], measures[part](options), os.getloadavg()[0]
        figures[part] = {"load": (before, after), "results": rows}
        sys.stdout.write(table(part, rows, (before, after)))
        sys.stdout.flush()
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
