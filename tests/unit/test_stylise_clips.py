"""The stylise-clips stage: what is kept, who gets a copy, how steady the copies are, and what a kill leaves."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from test_dualstyle_system import SMALL, exported
from training_kit import write_shards as toy_shards

from models.contracts import INDEX_NAME, ShardClip, ShardIndex
from models.errors import CheckpointError, ClipError, ParamsError
from pipelines import clip_cartoons
from pipelines import stylise_clips as stage
from pipelines.clip_cartoons import cartoon, clip_square, cut_clip, smoothed
from pipelines.face_engines import TorchFaces, from_checkpoint
from pipelines.settings import StylisedDataset
from pipelines.stage import Paths
from preprocessing.shards import encode_frames, write_index, write_shard
from training.codes import Codes, code_table, write_codes
from training.recipes import dualstyle
from training.shard_reader import ShardReader

SETTINGS = StylisedDataset(dataset="clips", system="cartoon", share=1.0)
NAME = "clips-and-cartoons"
STYLES = ("first", "second", "third")


@dataclass
class Given:
    """As much of the parameters as the stage reads."""

    settings: StylisedDataset

    def stylised(self, name: str) -> StylisedDataset:
        assert name == NAME
        return self.settings


def write_system(root: Path) -> None:
    """A trained one's files: random weights, three styles."""
    torch.manual_seed(0)
    networks = dualstyle.build_networks(SMALL)
    for parameter in networks["generator"].residuals.parameters():  # as training leaves them: not nearly nothing
        parameter.data += 0.3 * torch.randn_like(parameter)
    shape = (SMALL.num_styles, SMALL.style_dim)
    table = code_table({name: Codes(torch.randn(shape), torch.randn(shape)) for name in STYLES})
    write_codes(Paths(root).refined("cartoon"), table)
    exported(Paths(root).trained("cartoon-target"), "dualstylegan", networks)


@pytest.fixture(autouse=True)
def _few_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Toys have no face, and their strip is not looked at."""
    monkeypatch.setattr(clip_cartoons, "LOOKS", 1)
    monkeypatch.setattr(stage, "SHOWN", 1)
    monkeypatch.setattr(stage, "SHOWN_FRAMES", 2)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trained")
    write_system(root)
    return root


@pytest.fixture
def paths(trained: Path, tmp_path: Path) -> Paths:
    """A project with a trained system, four clips that train and two that test, a shard of each."""
    return project(trained, tmp_path / "project")


@pytest.fixture
def engine(trained: Path) -> TorchFaces:
    return from_checkpoint(Paths(trained).trained("cartoon-target"), Paths(trained).refined("cartoon"))[0]


def project(trained: Path, root: Path) -> Paths:
    toy_shards(root / "data" / "shards" / "clips", num_frames=9)
    for name in ("trained", "refined"):
        (root / "data" / name).symlink_to(trained / "data" / name)
    return Paths(root)


def clips(count: int, split: Any = "train", start: int = 0) -> list[ShardClip]:
    return [
        ShardClip(id=f"{split}-{i}", split=split, identity=f"person-{i}", num_frames=5, fps=25.0, shard=0, row=i)
        for i in range(start, start + count)
    ]


def made(paths: Paths, settings: StylisedDataset = SETTINGS) -> stage.StyliseClipsReport:
    return stage.run(NAME, Given(settings), paths)  # type: ignore[arg-type]


def killed_after(count: int, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the stage until so many clips are stylised."""
    whole, seen = stage.cartoon, list[str]()

    def dying(clip: ShardClip, *others: Any) -> Any:
        seen.append(clip.id)
        if len(seen) > count:
            raise KeyboardInterrupt
        return whole(clip, *others)

    with monkeypatch.context() as patch:
        patch.setattr(stage, "cartoon", dying)
        with pytest.raises(KeyboardInterrupt):
            made(paths)


def index_bytes(paths: Paths) -> bytes:
    return (paths.shards(NAME) / INDEX_NAME).read_bytes()


def test_clips_stay_as_they_are_and_copies_join_them(paths: Paths) -> None:
    report = made(paths, replace(SETTINGS, share=0.6))
    before, after = ShardReader(paths.shards("clips")), ShardReader(paths.shards(NAME))
    after.verify()
    assert after.index.dataset == NAME
    assert (after.index.size_px, after.index.split_rule) == (before.index.size_px, before.index.split_rule)
    assert [shard.sha256 for shard in after.index.shards[:2]] == [shard.sha256 for shard in before.index.shards]
    assert after.clips()[:6] == before.clips()
    copies = after.clips()[6:]
    known = {clip.id: clip for clip in before.clips()}
    assert len(copies) == report.stylised_clips > 1
    for copy in copies:
        name, _, style = copy.id.rpartition("-")
        assert style in STYLES
        assert copy.split == known[name].split
        assert copy.identity not in {clip.identity for clip in known.values()}
        assert after.frames(copy).shape == before.frames(known[name]).shape
        assert np.abs(after.frames(copy).astype(float) - before.frames(known[name])).mean() > 5
    assert {copy.split for copy in copies} == {"train", "test"}


def test_the_report_counts_what_is_in_the_shards(paths: Paths) -> None:
    report = made(paths)
    assert (report.clips, report.stylised_clips, report.frames, report.stylised_frames) == (12, 6, 108, 54)
    assert report.clips_of_split == {"train": 8, "test": 4}
    assert report.stylised_of_split == {"train": 4, "test": 2}
    assert sum(report.styles.values()) == 6
    assert report.num_unaligned == len(report.unaligned) == 6  # squares before a gradient have no faces
    written = json.loads(paths.report(stage.STAGE, NAME).read_text())
    assert written["stylised_of_split"] == {"train": 4, "test": 2}
    assert [(paths.pictures(stage.STAGE, NAME) / name).is_file() for name in report.pictures] == [True]


def test_a_new_clip_changes_no_others_choice() -> None:
    settings = replace(SETTINGS, share=0.5)
    few = stage.picked(clips(200), settings, STYLES)
    more = stage.picked([*clips(50, start=200), *clips(200)], settings, STYLES)
    assert [(pick.clip, pick.style) for pick in few] == [(pick.clip, pick.style) for pick in more][-len(few) :]
    assert 80 <= len(few) <= 120
    assert set(Counter(pick.style for pick in few)) == set(STYLES)
    other = stage.picked(clips(200), replace(settings, seed=1), STYLES)
    assert [pick.id for pick in other] != [pick.id for pick in few]


def test_a_share_is_of_every_split() -> None:
    both = [*clips(40), *clips(3, "test")]
    assert [pick.clip for pick in stage.picked(both, SETTINGS, STYLES)] == both
    assert stage.picked(both, replace(SETTINGS, share=0.0), STYLES) == []
    least = stage.picked(both, replace(SETTINGS, share=1e-9), STYLES)
    assert [pick.clip.split for pick in least] == ["train", "test"]


def test_fewer_styles_are_spread_over_all() -> None:
    names = tuple(f"style-{number}" for number in range(9))
    used = {pick.style for pick in stage.picked(clips(60), replace(SETTINGS, styles=3), names)}
    assert used == {"style-0", "style-4", "style-8"}
    assert {pick.style for pick in stage.picked(clips(60), replace(SETTINGS, styles=99), STYLES)} == set(STYLES)


def test_names_that_would_be_given_twice_are_refused() -> None:
    first = clips(1)[0]
    taken = [first, replace(first, id=f"{first.id}-first")]
    with pytest.raises(ClipError, match="train-0-first"):
        stage.picked(taken, SETTINGS, ("first",))
    with pytest.raises(ClipError, match="hold a clip"):
        stage.picked([], SETTINGS, STYLES)


def test_a_data_set_is_never_replaced_by_its_own_copies(paths: Paths) -> None:
    before = (paths.shards("clips") / INDEX_NAME).read_bytes()
    with pytest.raises(ParamsError, match="other than its data set's"):
        stage.stylise_clips("clips", SETTINGS, paths)
    assert (paths.shards("clips") / INDEX_NAME).read_bytes() == before


@pytest.mark.parametrize("smoothing", [0.0, 0.3, 0.9, 1.0])
def test_codes_are_means_weighted_by_their_distance_in_time(smoothing: float) -> None:
    codes = torch.randn(7, 3, 4, generator=torch.Generator().manual_seed(0))
    places = torch.arange(7)
    weights = smoothing ** (places[:, None] - places[None, :]).abs().float()
    wanted = torch.einsum("mn,nsd->msd", weights / weights.sum(1, keepdim=True), codes)
    torch.testing.assert_close(smoothed(codes, smoothing), wanted)
    torch.testing.assert_close(smoothed(codes[:1], smoothing), codes[:1])


def test_smoothing_takes_the_flicker_out_of_a_still_clip(engine: TorchFaces, tmp_path: Path) -> None:
    rng, num_frames = np.random.default_rng(0), 20
    still = np.broadcast_to(np.linspace(0, 255, 32)[:, None, None], (32, 32, 3))
    frames = np.stack([still + rng.normal(0, 8, still.shape) for _ in range(num_frames)]).clip(0, 255).astype(np.uint8)
    clip = replace(clips(1)[0], num_frames=num_frames)
    shard = write_shard([(clip.id, encode_frames(frames, quality=95))], tmp_path / "shard-00000.parquet")
    write_index(tmp_path, ShardIndex(dataset="x", size_px=32, split_rule="time", shards=(shard,), clips=(clip,)))

    def flicker(smoothing: float) -> float:
        settings = replace(SETTINGS, smoothing=smoothing)
        batches, _ = cartoon(clip, "first", ShardReader(tmp_path), engine, settings)
        shown = np.concatenate(list(batches)).astype(float)
        assert shown.shape == frames.shape
        return float(np.abs(np.diff(shown, axis=0)).mean())

    rough, smooth = flicker(0.0), flicker(0.5)
    assert rough > 0.1
    assert smooth < 0.7 * rough
    assert flicker(1.0) < 1e-3 * rough


def test_codes_between_leave_a_cartoon_what_it_was(engine: TorchFaces) -> None:
    faces = np.random.default_rng(0).integers(0, 256, (11, 32, 32, 3), np.uint8)
    for output in ("style", "structure"):
        apart = engine.make(engine.encode(faces), "second", output=output, structure=0.5)
        np.testing.assert_allclose(apart, engine.stylise(faces, "second", output=output, structure=0.5), atol=1e-5)


def test_a_clip_has_one_square_where_its_face_is(samples: Path) -> None:
    picture = cv2.imread(str(sorted((samples / "portraits").glob("*.jpg"))[0]))[..., ::-1]
    side = min(picture.shape[:2])
    whole = cv2.resize(picture[:side, :side], (128, 128), interpolation=cv2.INTER_AREA)
    moved = np.stack([np.roll(whole, shift, axis=1) for shift in (-6, 0, 6)])
    square, alone = clip_square(moved), clip_square(moved[1:2])
    assert square is not None
    assert alone is not None
    for one, other in ((square.x, alone.x), (square.y, alone.y), (square.side, alone.side)):
        assert abs(one - other) < 3
    cut = cut_clip(moved, square, size_px=64)
    assert cut.shape == (3, 64, 64, 3)
    shift = round(6 * 64 / square.side)  # the head moves in the square as it did in the frame
    left, right = cut[1, 16:48, 16:48].astype(float), cut[2, 16:48, 16 + shift : 48 + shift].astype(float)
    assert np.abs(left - right).mean() < 0.5 * np.abs(left - cut[2, 16:48, 16:48]).mean()
    assert clip_square(np.full((2, 64, 64, 3), 90, np.uint8)) is None


@pytest.mark.slow
def test_what_is_done_is_kept_until_the_settings_change(paths: Paths) -> None:
    first = made(paths)
    before = index_bytes(paths)
    again = made(paths)
    assert (first.clips_before, again.clips_before) == (0, 6)
    assert index_bytes(paths) == before
    assert made(paths, replace(SETTINGS, smoothing=0.9)).clips_before == 0
    assert index_bytes(paths) != before


@pytest.mark.slow
def test_a_killed_stage_leaves_the_old_shards_and_goes_on(
    paths: Paths, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(paths, replace(SETTINGS, share=0.2))
    before = index_bytes(paths)
    killed_after(4, paths, monkeypatch)
    assert index_bytes(paths) == before
    ShardReader(paths.shards(NAME)).verify()
    assert made(paths).clips_before == 4
    ShardReader(paths.shards(NAME)).verify()
    unbroken = project(trained, tmp_path / "unbroken")
    made(unbroken)
    assert index_bytes(paths) == index_bytes(unbroken)


def test_new_clips_leave_old_files_alone_wherever_they_have_a_name(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_after(0, paths, monkeypatch)  # its unfinished folder has names of the old files
    source, cache = paths.shards("clips"), tmp_path / "cache"
    source.rename(cache)
    toy_shards(source, num_train=3, num_frames=7)
    wanted = {file: file.read_bytes() for folder in (source, cache) for file in folder.iterdir()}
    report = made(paths)
    assert (report.clips, report.clips_before) == (10, 0)
    assert {file: file.read_bytes() for file in wanted} == wanted
    ShardReader(paths.shards(NAME)).verify()


def test_a_shard_that_has_changed_costs_nothing_that_was_there(paths: Paths) -> None:
    made(paths)
    before, shard = index_bytes(paths), paths.shards("clips") / "test.parquet"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.unlink()
    shard.write_bytes(data)
    (paths.shards(NAME).parent / f".{NAME}.journal.jsonl").unlink()
    with pytest.raises(ClipError, match="as indexed"):
        made(paths)
    assert index_bytes(paths) == before
    ShardReader(paths.shards(NAME)).verify()


def test_a_system_without_training_is_named(paths: Paths) -> None:
    with pytest.raises(CheckpointError, match="other-target"):
        made(paths, replace(SETTINGS, system="other"))


@pytest.mark.parametrize(
    ("key", "value"),
    [("share", 1.5), ("share", -0.1), ("structure", 2.0), ("colour", -1.0), ("smoothing", float("nan")), ("styles", 0)],
)
def test_settings_have_bounds(key: str, value: float) -> None:
    with pytest.raises(ParamsError, match=key):
        replace(SETTINGS, **{key: value})
