"""What the trainings of DualStyleGAN's networks learn from: single pictures, or faces and style pictures with codes."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from models.errors import TrainingError, must
from models.style.face_config import FaceConfig
from training.codes import codes_sha256, read_codes
from training.dualstyle_feed import DualStyleFeed
from training.dualstyle_validation import ExchangeValidation, StyledValidation
from training.face_config import FaceTrainConfig
from training.face_validation import MAX_REAL, EncodedValidation, MadeValidation, first_frames
from training.feed import Feed, ShardReader
from training.job import TrainJob
from training.pictures_feed import PictureFeed
from training.runfolder import fetch_folder
from training.world import World

if TYPE_CHECKING:
    from training.material import Judges, Material


def open_material(job: TrainJob) -> Material:
    """The data that a job names.

    Raises:
        ClipError: shards are missing or broken.
        CheckpointError: the codes are missing, or are not of these style pictures.
        TrainingError: the pictures are smaller than the networks'.
    """
    return _Styled(job) if job.style_shards is not None else _Pictures(job)


class _Pictures:
    """Single pictures: StyleGAN2's, the encoder's, and those of DualStyleGAN's source domain."""

    def __init__(self, job: TrainJob) -> None:
        from training.material import material_sha256

        assert isinstance(job.train, FaceTrainConfig), "a face preset has a face training"
        self.train, self.size_px, self.preset = job.train, job.model.size_px, job.preset
        self.reader = ShardReader(job.shards)
        check_size(self.reader, self.size_px)
        self.sha256 = material_sha256([self.reader.folder])

    def settle(self, recipe: Any) -> None:
        if self.preset == "stylegan2" and self.train.gan.warm_up_steps:
            clips = self.reader.clips("train")[:MAX_REAL]
            if len(clips) < 2:
                raise TrainingError(must("gan.warm_up_steps", "be 0 for fewer than two pictures", len(clips)))
            recipe.learn_components(first_frames(self.reader, clips, self.size_px))

    def feed(self, world: World) -> Feed:
        from training.material import feed_options

        return PictureFeed(self.reader, feed_options(self.train, world), size_px=self.size_px)

    def validation(self, recipe: Any, world: World) -> Judges:
        if self.preset == "dualstylegan":
            return ExchangeValidation(recipe, num_pictures=self.train.num_validation_pictures)
        kind = EncodedValidation if self.preset == "psp" else MadeValidation
        return kind(self.reader, recipe, world, num_pictures=self.train.num_validation_pictures, size_px=self.size_px)


class _Styled:
    """Faces, and style pictures with the codes that destylisation found: DualStyleGAN's target domain."""

    def __init__(self, job: TrainJob) -> None:
        from training.material import material_sha256

        assert isinstance(job.train, FaceTrainConfig), "a face preset has a face training"
        assert job.style_shards is not None, "the target domain has style pictures"
        assert isinstance(job.model, FaceConfig), "a face preset has a face's networks"
        self.train, self.size_px = job.train, job.model.size_px
        self.photos, self.styles = ShardReader(job.shards), ShardReader(job.style_shards)
        check_size(self.photos, self.size_px)
        check_size(self.styles, self.size_px)
        if "codes" not in job.parts:
            fix = "Run inkmotion destylise first"
            raise TrainingError(must("the training", "have the codes of its style pictures", "none", fix))
        with fetch_folder(job.parts["codes"]) as folder:
            self.codes, of_codes = read_codes(folder), codes_sha256(folder)
        self.codes.check_fits(job.model.num_styles, job.model.style_dim)
        pictures = material_sha256([self.photos.folder, self.styles.folder])
        self.sha256 = hashlib.sha256(f"{pictures}{of_codes}".encode()).hexdigest()

    def settle(self, recipe: Any) -> None:
        """Nothing."""

    def feed(self, world: World) -> Feed:
        from training.material import feed_options

        options = feed_options(self.train, world)
        return DualStyleFeed(self.photos, self.styles, self.codes, options, size_px=self.size_px)

    def validation(self, recipe: Any, world: World) -> Judges:
        return StyledValidation(
            self.photos,
            self.styles,
            self.codes,
            recipe,
            world,
            num_photos=self.train.num_validation_pictures,
            size_px=self.size_px,
        )


def check_size(reader: ShardReader, size_px: int) -> None:
    """See that pictures need not be blown up.

    Raises:
        TrainingError: they would.
    """
    if size_px > reader.index.size_px:
        rule = f"be at most that of {reader.index.dataset} ({reader.index.size_px} px)"
        fix = "Lower it, or raise the data set's size_px and make the shards again"
        raise TrainingError(must("model.size_px", rule, size_px, fix))
