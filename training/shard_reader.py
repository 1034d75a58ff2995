"""Reads frames out of shards: mapped Parquet, one row group at a time, with a bounded cache of coded frames."""

from __future__ import annotations

import functools
import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from models.contracts import INDEX_NAME, ShardClip, ShardFile, ShardIndex, Split
from models.errors import ClipError, must
from training.shard_cache import local_copy

if TYPE_CHECKING:  # a recipe on frames of its own needs neither Parquet nor a codec
    import pyarrow.parquet as pq

CACHE_BYTES = 1 << 29
"""Coded frames that a reader keeps in memory: small data sets live there whole."""
HASH_BYTES = 1 << 20
OPEN_SHARDS = 64
"""Shards whose footers a reader keeps; the files themselves are mapped only while they are read."""


Column = Literal["frames", "smooth"]
"""Of a shard: the frames of a clip, or the edge-smoothed copy of a still."""


class CodedClip(NamedTuple):
    """The JPEG bytes of one clip: frame ``k`` is ``data[offsets[k]:offsets[k + 1]]``."""

    data: np.ndarray
    offsets: np.ndarray


class ShardReader:
    """Reads frames out of a folder of shards, by clip and position. Safe to share among threads; picklable."""

    def __init__(self, folder: Path | str, *, cache_bytes: int = CACHE_BYTES) -> None:
        """Read the index and check that every shard is there with its size.

        Args:
            folder: of ``index.json``; a URL is copied to a local folder once.
            cache_bytes: bound of the coded frames kept in memory; the least recently used clips leave first.

        Raises:
            ClipError: no index, an index of another schema, a missing shard or one of another size.
        """
        self.location = folder
        self.folder = local_copy(folder)
        self.index = read_index(self.folder)
        self.cache_bytes = cache_bytes
        self._cache: OrderedDict[tuple[int, int, Column], CodedClip] = OrderedDict()
        self._cached_bytes = 0
        self._footers: OrderedDict[int, pq.FileMetaData] = OrderedDict()
        self._lock = threading.Lock()
        for shard in self.index.shards:
            _check_size(self.folder / shard.path, shard)

    def __reduce__(self) -> tuple[object, ...]:
        return functools.partial(ShardReader, self.location, cache_bytes=self.cache_bytes), ()

    def clips(self, split: Split | None = None) -> list[ShardClip]:
        """The clips of one split (or all), in the index's order."""
        return [clip for clip in self.index.clips if split in (None, clip.split)]

    def frames(self, clip: ShardClip, positions: Sequence[int] | None = None) -> np.ndarray:
        """Decode some frames of a clip (all by default), in the order asked for.

        Returns:
            uint8 RGB, (n, H, W, 3).

        Raises:
            ClipError: a position outside the clip, or a shard that can't be read.
        """
        import cv2

        size = self.index.size_px
        wanted = range(clip.num_frames) if positions is None else positions
        frames = np.empty((len(wanted), size, size, 3), dtype=np.uint8)
        for place, position in enumerate(wanted):
            cv2.cvtColor(self.decode(clip, position), cv2.COLOR_BGR2RGB, dst=frames[place])
        return frames

    def decode(self, clip: ShardClip, position: int) -> np.ndarray:
        """One frame as the JPEG codec gives it: uint8 BGR, (H, W, 3)."""
        if not 0 <= position < clip.num_frames:
            raise ClipError(must(self._name(clip), f"hold frame {position}", f"{clip.num_frames} frames"))
        return self._picture(clip, "frames", position)

    def smooth(self, clip: ShardClip) -> np.ndarray:
        """The edge-smoothed copy of a still.

        Returns:
            uint8 RGB, (H, W, 3).

        Raises:
            ClipError: the shards hold no copies, or can't be read.
        """
        import cv2

        return np.asarray(cv2.cvtColor(self.decode_smooth(clip), cv2.COLOR_BGR2RGB))

    def decode_smooth(self, clip: ShardClip) -> np.ndarray:
        """As `smooth`, as the JPEG codec gives it: uint8 BGR, (H, W, 3)."""
        self.check_smooth()
        return self._picture(clip, "smooth", 0)

    def check_smooth(self) -> None:
        """See that the stills' edge-smoothed copies are in the shards.

        Raises:
            ClipError: they are not.
        """
        if not self.index.smooth:
            name = self.index.dataset
            fix = f"Set datasets.{name}.smooth to true, and cut and shard it again"
            raise ClipError(must(f"the shards of data set {name}", "hold edge-smoothed copies", "none", fix))

    def _picture(self, clip: ShardClip, column: Column, position: int) -> np.ndarray:
        import cv2

        coded, size = self._coded(clip, column), self.index.size_px
        start, stop = coded.offsets[position], coded.offsets[position + 1]
        frame = cv2.imdecode(coded.data[start:stop], cv2.IMREAD_COLOR) if stop > start else None
        if frame is None or frame.shape != (size, size, 3):
            got = "bytes that are no JPEG" if frame is None else f"{frame.shape[1]} x {frame.shape[0]}"
            what = (
                f"frames of {size} x {size} (frame {position})" if column == "frames" else f"a copy of {size} x {size}"
            )
            rule = f"hold {what}"
            raise ClipError(must(self._name(clip), rule, got, "Make the shards again"))
        return frame

    def verify(self) -> None:
        """Compare every shard with its checksum.

        Raises:
            ClipError: naming the first shard that differs.
        """
        for shard in self.index.shards:
            path = self.folder / shard.path
            _check_size(path, shard)
            digest = hashlib.sha256()
            with path.open("rb") as file:
                while block := file.read(HASH_BYTES):
                    digest.update(block)
            if digest.hexdigest() != shard.sha256:
                got = f"sha256 {digest.hexdigest()[:12]}"
                fix = "Make the shards again"
                raise ClipError(must(str(path), f"have sha256 {shard.sha256[:12]} as indexed", got, fix))

    def _coded(self, clip: ShardClip, column: Column) -> CodedClip:
        key = (clip.shard, clip.row, column)
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        coded = self._read(clip, column)
        with self._lock:
            if key not in self._cache:
                self._cache[key] = coded
                self._cached_bytes += coded.data.nbytes
            while self._cached_bytes > self.cache_bytes and len(self._cache) > 1:
                self._cached_bytes -= self._cache.popitem(last=False)[1].data.nbytes
        return coded

    def _read(self, clip: ShardClip, column: Column) -> CodedClip:
        import pyarrow as pa
        import pyarrow.parquet as pq

        shard = self.index.shards[clip.shard]
        path = self.folder / shard.path
        try:
            with pa.memory_map(str(path)) as source:
                parquet = pq.ParquetFile(source, metadata=self._footers.get(clip.shard))
                self._remember(clip.shard, parquet.metadata)
                table = parquet.read_row_group(clip.row, columns=["id", column], use_threads=False)
                found, values = table.column("id")[0].as_py(), table.column(column).chunk(0)
        except (OSError, pa.ArrowException, IndexError, KeyError) as error:
            got = " ".join(str(error).split())[:200]
            raise ClipError(must(self._name(clip), "be readable Parquet", got, "Make the shards again")) from error
        pictures, expected = (values.values, clip.num_frames) if column == "frames" else (values, 1)
        if found != clip.id or len(pictures) != expected:
            got = f"{found!r} with {len(pictures)} frames"
            rule = f"hold {clip.id!r} with {clip.num_frames} frames in row {clip.row}"
            raise ClipError(must(str(path), rule, got, "Make the shards again"))
        _, offsets, data = pictures.buffers()
        return CodedClip(
            np.frombuffer(data, dtype=np.uint8),
            np.frombuffer(offsets, dtype=np.int32)[pictures.offset :][: expected + 1].astype(np.int64),
        )

    def _remember(self, shard: int, footer: pq.FileMetaData) -> None:
        with self._lock:
            self._footers[shard] = footer
            if len(self._footers) > OPEN_SHARDS:
                self._footers.popitem(last=False)

    def _name(self, clip: ShardClip) -> str:
        return f"{self.folder / self.index.shards[clip.shard].path}, clip {clip.id}"


def read_index(folder: Path) -> ShardIndex:
    """Read ``index.json``.

    Raises:
        ClipError: it is missing, torn or of another schema.
    """
    path = folder / INDEX_NAME
    try:
        index = ShardIndex.from_json(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        fix = "Run the shard stage first"
        raise ClipError(must(str(path), "be readable", error.strerror or str(error), fix)) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ClipError(must(str(path), "be a shard index", str(error), "Make the shards again")) from None
    if index.schema_version != 1:
        fix = "Make the shards again with this version"
        raise ClipError(must(str(path), "have schema_version 1", index.schema_version, fix))
    return index


def _check_size(path: Path, shard: ShardFile) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise ClipError(must(str(path), "be readable", error.strerror or str(error), "Make the shards again")) from None
    if size != shard.num_bytes:
        fix = "Make the shards again"
        raise ClipError(must(str(path), f"have {shard.num_bytes} bytes as indexed", f"{size} bytes", fix))
