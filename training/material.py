"""What a training learns from, by family: its shards, its feed, and the check that it makes of itself on its way."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from models.catalog import MODELS
from models.contracts import INDEX_NAME
from models.errors import TrainingError, must
from training.checkpoint import file_sha256
from training.config import MotionTrainConfig, TrainConfig
from training.feed import Feed, FeedOptions, ShardReader
from training.job import TrainJob
from training.style_config import StyleTrainConfig
from training.style_validation import StyleValidation
from training.unpaired import UnpairedFeed
from training.validation import Validation
from training.world import World


class Judges(Protocol):
    """A validation."""

    judged_by: str
    """The figure that says which checkpoint is the best: lower is better."""

    def run(self, networks: Mapping[str, nn.Module]) -> dict[str, float]:
        """Judge networks that are in eval mode; the figures are equal on all ranks."""
        ...


class Material(Protocol):
    """The data of one training."""

    sha256: str
    """Of all of it, by which a checkpoint knows it again."""

    def settle(self, recipe: Any) -> None:
        """Give a recipe what it has to know of the whole data before it begins."""
        ...

    def feed(self, world: World) -> Feed:
        """This rank's samples."""
        ...

    def validation(self, recipe: Any, world: World) -> Judges:
        """This rank's share of the check."""
        ...


def open_material(job: TrainJob) -> Material:
    """The data that a job names.

    Raises:
        ClipError: shards are missing or broken.
        TrainingError: they do not fit the networks.
    """
    kinds: dict[str, Callable[[TrainJob], Material]] = {"motion": _Pairs, "style": _Unpaired, "dualstyle": open_faces}
    return kinds[MODELS[job.preset].family](job)


def material_sha256(folders: Sequence[Path]) -> str:
    """Of shards' indices, which hold the checksum of every shard; of one folder its index' own."""
    sums = [file_sha256(folder / INDEX_NAME) for folder in folders]
    return sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()


class _Pairs:
    """Pairs of frames out of one set of clips: the motion family."""

    def __init__(self, job: TrainJob) -> None:
        assert isinstance(job.train, MotionTrainConfig), "a motion preset has a motion training"
        self.train, self.reader = job.train, ShardReader(job.shards)
        size = self.reader.index.size_px
        if job.model.size_px != size:
            fix = "Leave model.size_px to the data set, or make the shards again"
            raise TrainingError(must("model.size_px", f"be the shards' size ({size} px)", job.model.size_px, fix))
        self.sha256 = material_sha256([self.reader.folder])

    def settle(self, recipe: Any) -> None:
        """Nothing."""

    def feed(self, world: World) -> Feed:
        options = dataclasses.replace(
            feed_options(self.train, world), id_sampling=self.train.id_sampling, flip_time=self.train.flip_time
        )
        return Feed(self.reader, options)

    def validation(self, recipe: Any, world: World) -> Judges:
        return Validation(self.reader, recipe, world, num_pairs=self.train.num_validation_pairs)


class _Unpaired:
    """Photos and style pictures: the style family."""

    def __init__(self, job: TrainJob) -> None:
        assert isinstance(job.train, StyleTrainConfig), "a style preset has a style training"
        assert job.style_shards is not None, "a style training has style pictures"
        self.train, self.size_px = job.train, job.model.size_px
        self.photos, self.styles = ShardReader(job.shards), ShardReader(job.style_shards)
        for what, reader in (("photos", self.photos), ("style pictures", self.styles)):
            if self.size_px > reader.index.size_px:
                rule = f"be at most that of the {what} ({reader.index.size_px} px)"
                fix = "Lower it, or raise the data set's size_px and make the shards again"
                raise TrainingError(must("model.size_px", rule, self.size_px, fix))
        self.sha256 = material_sha256([self.photos.folder, self.styles.folder])

    def settle(self, recipe: Any) -> None:
        """Nothing."""

    def feed(self, world: World) -> Feed:
        smooth = self.train.losses.smooth_negative > 0
        options = feed_options(self.train, world)
        return UnpairedFeed(
            self.photos, self.styles, options, size_px=self.size_px, crop=self.train.crop, smooth=smooth
        )

    def validation(self, recipe: Any, world: World) -> Judges:
        return StyleValidation(
            self.photos, self.styles, recipe, world, num_photos=self.train.num_validation_photos, size_px=self.size_px
        )


def open_faces(job: TrainJob) -> Material:
    """The data of a training of DualStyleGAN's networks."""
    from training.face_material import open_material

    return open_material(job)


def feed_options(train: TrainConfig, world: World) -> FeedOptions:
    """What a rank takes of a training's sequence."""
    return FeedOptions(
        seed=train.seed,
        batch_size=train.batch_size,
        rank=world.rank,
        world_size=world.size,
        num_repeats=train.num_repeats,
        flip_horizontal=train.flip_horizontal,
        threads=train.feed_threads,
        prefetch_batches=train.prefetch_batches,
    )
