"""Samples per second of the training's feed, beside a DataLoader on the same shards and beside decoding mp4 clips.

    python benchmarks/feed.py --size 64 --size 256 --out feed.json

Every variant draws two random frames of a random clip, mirrors half of the pairs and hands out uint8 batches
(B, 3, H, W). The variants take turns, round after round, and the ratios are taken within a round, because machines are
noisy.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from models.contracts import ShardClip, ShardIndex
from preprocessing.shards import encode_frames, write_index, write_shard
from training.feed import Feed, FeedOptions, ShardReader

WORKERS = (0, 1, 2)
Pair = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    shards: Path
    clips: list[Path]


def as_planes(frame: np.ndarray, mirrored: bool) -> torch.Tensor:
    """A BGR frame as the feed hands it out, the same way."""
    planes = np.empty((3, *frame.shape[:2]), dtype=np.uint8)
    cv2.split(cv2.flip(frame, 1) if mirrored else frame, [planes[2], planes[1], planes[0]])
    return torch.from_numpy(planes)


class ShardPairs(Dataset[Pair]):
    """Pairs out of the shards, with the feed's own decoding function."""

    def __init__(self, shards: Path) -> None:
        cv2.setNumThreads(0)
        self.reader = ShardReader(shards)
        self.clips = self.reader.clips("train")

    def __len__(self) -> int:
        return 1 << 20

    def __getitem__(self, item: int) -> Pair:
        rng = np.random.default_rng(item)
        clip = self.clips[item % len(self.clips)]
        first, second = sorted(rng.integers(clip.num_frames, size=2).tolist())
        mirrored = bool(rng.integers(2))
        frames = self.reader.decode(clip, first), self.reader.decode(clip, second)
        return as_planes(frames[0], mirrored), as_planes(frames[1], mirrored)


class VideoPairs(Dataset[Pair]):
    """Pairs out of mp4 clips, by decord on handles that stay open."""

    def __init__(self, clips: Sequence[Path], size_px: int) -> None:
        self.clips, self.size_px = list(clips), size_px
        self.open: dict[int, Any] = {}

    def __len__(self) -> int:
        return 1 << 20

    def __getitem__(self, item: int) -> Pair:
        import decord

        rng, place = np.random.default_rng(item), item % len(self.clips)
        if place not in self.open:
            size = {"width": self.size_px, "height": self.size_px}
            self.open[place] = decord.VideoReader(str(self.clips[place]), num_threads=1, **size)
        video = self.open[place]
        frames = video.get_batch(sorted(rng.integers(len(video), size=2).tolist())).asnumpy()
        mirrored = bool(rng.integers(2))
        first, second = (as_planes(frame[:, :, ::-1], mirrored) for frame in frames)
        return first, second


def feed_batches(shards: Path, batch_size: int, threads: int) -> Iterator[int]:
    options = FeedOptions(batch_size=batch_size, threads=threads, num_repeats=100)
    with Feed(ShardReader(shards), options) as feed:
        for batch in feed.batches(0):
            yield len(batch.source)


def loader_batches(dataset: Callable[[], Dataset[Pair]], batch_size: int, workers: int) -> Iterator[int]:
    ahead = {"prefetch_factor": 4} if workers else {}
    loader = DataLoader(dataset(), batch_size=batch_size, shuffle=True, num_workers=workers, drop_last=True, **ahead)
    for source, _ in loader:
        yield len(source)


def measure(batches: Iterator[int], seconds: float, warm_up: int = 12) -> float:
    """Samples per second of an iterator in its steady state."""
    try:
        sum(itertools.islice(batches, warm_up))
        samples, started_s = 0, time.perf_counter()
        while (elapsed_s := time.perf_counter() - started_s) < seconds:
            samples += next(batches)
        return samples / elapsed_s
    finally:
        batches.close()  # type: ignore[attr-defined]


def make_media(folder: Path, size_px: int, num_clips: int, num_frames: int, *, videos: bool) -> Media:
    """A data set of drifting, grainy textures, whose frames weigh about what faces do."""
    rng, per_shard = np.random.default_rng(size_px), 8
    files, places, paths = [], [], []
    for shard in range(0, num_clips, per_shard):
        rows = []
        for number in range(shard, min(shard + per_shard, num_clips)):
            frames = make_clip(rng, size_px, num_frames)
            rows.append((f"clip-{number:03d}", encode_frames(frames, quality=95)))
            where = {"shard": len(files), "row": len(rows) - 1, "num_frames": num_frames, "fps": 25.0}
            places.append(ShardClip(id=rows[-1][0], split="train", identity=rows[-1][0], **where))
            paths += [make_video(frames, folder / f"clip-{number:03d}.mp4")] if videos else []
        files.append(write_shard(rows, folder / f"shard-{len(files):05d}.parquet"))
    index = ShardIndex(dataset="made", size_px=size_px, split_rule="source", shards=tuple(files), clips=tuple(places))
    write_index(folder, index)
    return Media(shards=folder, clips=paths)


def make_clip(rng: np.random.Generator, size_px: int, num_frames: int) -> np.ndarray:
    wide = cv2.resize(rng.integers(0, 256, (12, 18, 3), dtype=np.uint8), (size_px * 3 // 2, size_px))
    grain = rng.normal(0, 3, (size_px, size_px, 3))
    steps = np.linspace(0, size_px // 2 - 1, num_frames).astype(int)
    return np.stack([np.clip(wide[:, step : step + size_px] + grain, 0, 255).astype(np.uint8) for step in steps])


def make_video(frames: np.ndarray, path: Path) -> Path:
    from preprocessing.video import write_video

    write_video(path, frames, fps=25, crf=18, keyframe_every=12)
    return path


def has_decord() -> bool:
    try:
        import decord  # noqa: F401
    except ImportError:
        return False
    return True


def compare(media: Media, arguments: argparse.Namespace) -> dict[str, Any]:
    size_px, batch = ShardReader(media.shards).index.size_px, arguments.batch_size
    variants: dict[str, Callable[[], Iterator[int]]] = {
        "feed": functools.partial(feed_batches, media.shards, batch, arguments.threads)
    }
    for workers in WORKERS:
        shards = functools.partial(ShardPairs, media.shards)
        variants[f"loader, {workers} workers"] = functools.partial(loader_batches, shards, batch, workers)
        if media.clips:
            videos = functools.partial(VideoPairs, media.clips, size_px)
            variants[f"mp4, {workers} workers"] = functools.partial(loader_batches, videos, batch, workers)
    rounds: list[dict[str, float]] = []
    order = list(variants)
    for _ in range(arguments.rounds):
        rates = {name: measure(variants[name](), arguments.seconds) for name in order}
        rounds.append({name: rates[name] for name in variants})
        order = order[1:] + order[:1]  # so that nobody always follows the same neighbour
    return {"size_px": size_px, **digest(rounds)}


def digest(rounds: list[dict[str, float]]) -> dict[str, Any]:
    """Medians per variant, and the feed's ratio to the best of each rival within each round."""
    median = {name: statistics.median(row[name] for row in rounds) for name in rounds[0]}
    ratios = {}
    for rival in ("loader", "mp4"):
        names = [name for name in median if name.startswith(rival)]
        if names:
            each = [row["feed"] / max(row[name] for name in names) for row in rounds]
            ratios[rival] = {"median": statistics.median(each), "lowest": min(each), "highest": max(each)}
    return {"samples_per_s": median, "feed_over": ratios, "rounds": rounds}


def table(result: dict[str, Any]) -> str:
    lines = [f"{result['size_px']} px{'':22}samples/s   feed is"]
    for name, rate in result["samples_per_s"].items():
        ratio = "" if name == "feed" else f"{result['samples_per_s']['feed'] / rate:8.2f} x"
        lines.append(f"  {name:<24}{rate:>11,.0f}{ratio}")
    for rival, ratio in result["feed_over"].items():
        span = f"{ratio['lowest']:.2f} to {ratio['highest']:.2f}"
        lines.append(f"  feed / best {rival:<12}{ratio['median']:>11.2f} x  ({span} over the rounds)")
    return "\n".join(lines) + "\n"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, action="append", help="of the made clips in px; may be repeated (64, 256)")
    parser.add_argument("--shards", type=Path, help="measure these shards instead of making some")
    parser.add_argument("--clips", type=Path, help="folder of the mp4 clips that belong to --shards")
    parser.add_argument("--num-clips", type=int, default=24)
    parser.add_argument("--num-frames", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2, help="of the feed")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each variant in each round")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    torch.set_num_threads(1)
    results = []
    if options.shards:
        results.append(
            compare(
                Media(shards=options.shards, clips=sorted(options.clips.glob("*.mp4")) if options.clips else []),
                options,
            )
        )
    for size_px in [] if options.shards else options.size or [64, 256]:
        with tempfile.TemporaryDirectory(prefix="feed-") as folder:
            made = make_media(Path(folder), size_px, options.num_clips, options.num_frames, videos=has_decord())
            results.append(compare(made, options))
    for result in results:
        sys.stdout.write(table(result))
    if options.out:
        machine = {
            "cpus": os.cpu_count(),
            "machine": platform.machine(),
            "torch": torch.__version__,
            "cv2": cv2.__version__,
        }
        settings = {"batch_size": options.batch_size, "threads": options.threads, "rounds": options.rounds}
        options.out.write_text(json.dumps({**machine, **settings, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
