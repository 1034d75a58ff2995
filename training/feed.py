"""The training's samples: one global, keyed sequence of frame pairs, read from shards and decoded ahead in threads.

Sample ``i`` of a training is the same pair of frames whoever asks for it. With ``M`` items in an epoch (clips, or
identities with ``id_sampling``, times ``num_repeats``), sample ``i`` belongs to epoch ``e = i // M``; the epoch's order
is a permutation keyed by (seed, e), and the clip, the pair and the flips are keyed by (seed, e, item). Step ``s`` of a
global batch of ``B`` holds samples ``s*B`` to ``(s+1)*B - 1``, of which rank ``r`` of ``n`` takes those with
``i % n == r``. So nothing depends on the number of ranks or threads, nor on where a training was interrupted.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from models.contracts import ShardClip, Split
from models.errors import ClipError, check, must
from training.randomness import keyed
from training.shard_reader import ShardReader

__all__ = ["Feed", "FeedOptions", "FeedStats", "PairBatch", "PairSequence", "Sample", "ShardReader"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedOptions:
    """What a feed gives to one rank."""

    seed: int = 0
    batch_size: int = 32
    """Global: over all ranks."""
    rank: int = 0
    world_size: int = 1
    num_repeats: int = 1
    """How often an epoch visits each clip (or identity)."""
    id_sampling: bool = False
    """Items are identities; one of the identity's clips is drawn each time."""
    flip_horizontal: bool = True
    """Mirror both frames of every second pair, on average."""
    flip_time: bool = True
    """Swap source and driving of every second pair, on average."""
    threads: int = 2
    prefetch_batches: int = 4
    """Batches that are ready or in work ahead of the one handed out."""

    def __post_init__(self) -> None:
        at_least_one = ("batch_size", "world_size", "num_repeats", "threads", "prefetch_batches")
        check(
            *((getattr(self, key) >= 1, key, getattr(self, key), "be 1 or more") for key in at_least_one),
            (0 <= self.rank < max(self.world_size, 1), "rank", self.rank, f"lie in 0 to {self.world_size - 1}"),
            (
                self.batch_size % max(self.world_size, 1) == 0,
                "batch_size",
                self.batch_size,
                f"be divisible by world_size ({self.world_size})",
            ),
        )


class Sample(NamedTuple):
    """What one global sample consists of."""

    clip: ShardClip
    source: int
    """Position of the source frame in its clip."""
    driving: int
    mirrored: bool


class PairBatch(NamedTuple):
    """One rank's share of one step."""

    source: torch.Tensor
    """uint8 RGB, (B, 3, H, W)."""
    driving: torch.Tensor
    """As ``source``."""
    items: np.ndarray
    """Global sample indices, int64, (B,): the key of every other draw that belongs to a sample."""
    smooth: torch.Tensor | None = None
    """Edge-smoothed copies of ``driving``, as it; None where there are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedStats:
    """What a feed has delivered so far."""

    samples: int
    """Of this rank."""
    waited_s: float
    """Time that the training stood still for its samples."""
    samples_per_s: float
    """Over the whole time since the first batch was asked for."""


class PairSequence:
    """The global sequence: which clip, frames and flip every sample index stands for. Pure; touches no file."""

    def __init__(self, clips: Sequence[ShardClip], options: FeedOptions) -> None:
        """Group the clips into items.

        Raises:
            ClipError: there is no clip.
        """
        if not clips:
            raise ClipError(must("the feed", "have a clip to draw from", "none in this split", "Check the split"))
        self.options = options
        by_name: dict[str, list[ShardClip]] = {}
        for clip in clips:
            by_name.setdefault(clip.identity if options.id_sampling else clip.id, []).append(clip)
        self.items = [by_name[name] for name in sorted(by_name)]
        self.items_per_epoch = len(self.items) * options.num_repeats
        self._order = functools.lru_cache(maxsize=4)(self._permutation)

    def sample(self, index: int) -> Sample:
        """The sample that stands at ``index`` (0 or more) of the sequence.

        The pair is two different frames in the order of time (the earlier one is the source) before the time flip; a
        clip of one frame gives that frame twice.
        """
        epoch, place = divmod(index, self.items_per_epoch)
        item = int(self._order(epoch)[place])
        draws = keyed(self.options.seed, "pair", epoch, item).bit_generator.random_raw(5).tolist()
        clips = self.items[item % len(self.items)]
        clip = clips[draws[0] % len(clips)]
        first = draws[1] % clip.num_frames
        second = draws[2] % max(clip.num_frames - 1, 1)
        if clip.num_frames > 1 and second >= first:
            second += 1
        source, driving = min(first, second), max(first, second)
        if self.options.flip_time and draws[3] >> 63:
            source, driving = driving, source
        return Sample(clip, source, driving, bool(self.options.flip_horizontal and draws[4] >> 63))

    def step(self, step: int) -> range:
        """Sample indices of this rank in a step, ascending."""
        options = self.options
        start = step * options.batch_size
        first = start + (options.rank - start) % options.world_size
        return range(first, start + options.batch_size, options.world_size)

    def _permutation(self, epoch: int) -> np.ndarray:
        return keyed(self.options.seed, "order", epoch).permutation(self.items_per_epoch)


class Feed:
    """Hands out one rank's batches, step after step, decoded ahead in threads.

    OpenCV's own thread pool is switched off for the whole process, because the feed's threads replace it.
    """

    def __init__(self, reader: ShardReader, options: FeedOptions, split: Split = "train") -> None:
        """Prepare the sequence of a split.

        Raises:
            ClipError: the split is empty.
        """
        self.reader = reader
        self.options = options
        self.sequence = PairSequence(reader.clips(split), options)
        self._threads = ThreadPoolExecutor(options.threads, thread_name_prefix="feed")
        self._samples = 0
        self._waited_s = 0.0
        self._started_s: float | None = None
        import cv2

        cv2.setNumThreads(0)

    def __enter__(self) -> Feed:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the threads; batches in work are dropped."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    @property
    def stats(self) -> FeedStats:
        """Counts since the first batch was asked for."""
        elapsed_s = time.perf_counter() - self._started_s if self._started_s is not None else 0.0
        rate = self._samples / elapsed_s if elapsed_s > 0 else 0.0
        return FeedStats(samples=self._samples, waited_s=self._waited_s, samples_per_s=rate)

    def batches(self, start_step: int = 0) -> Iterator[PairBatch]:
        """All steps from ``start_step`` on, without end; a step is the same batch whenever it is asked for.

        Raises:
            ClipError: a shard or frame can't be read; the message names shard and clip.
        """
        pending: deque[Future[PairBatch]] = deque()
        step = start_step
        if self._started_s is None:
            self._started_s = time.perf_counter()
        try:
            while True:
                while len(pending) <= self.options.prefetch_batches:
                    pending.append(self._threads.submit(self.assemble, step))
                    step += 1
                before_s = time.perf_counter()
                batch = pending.popleft().result()
                self._waited_s += time.perf_counter() - before_s
                self._samples += len(batch.items)
                yield batch
        finally:
            for future in pending:
                future.cancel()
            with contextlib.suppress(Exception):  # a batch that nobody asked for any more may fail unheard
                for future in pending:
                    if not future.cancelled():
                        future.result()

    def assemble(self, step: int) -> PairBatch:
        """Read, decode and stack one step's samples of this rank."""
        import cv2

        indices, size = self.sequence.step(step), self.reader.index.size_px
        source = np.empty((len(indices), 3, size, size), dtype=np.uint8)
        driving = np.empty_like(source)
        for place, index in enumerate(indices):
            sample = self.sequence.sample(index)
            for batch, position in ((source, sample.source), (driving, sample.driving)):
                frame = self.reader.decode(sample.clip, position)
                blue, green, red = batch[place, 2], batch[place, 1], batch[place, 0]
                cv2.split(cv2.flip(frame, 1) if sample.mirrored else frame, [blue, green, red])
        items = np.fromiter(indices, dtype=np.int64, count=len(indices))
        return PairBatch(torch.from_numpy(source), torch.from_numpy(driving), items)
