"""The sample photos and style pictures from their folders to the batches of a style training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pipelines import crop, download, shard
from pipelines.params import ClusterConfig, Params, parse
from pipelines.session import ray_session
from pipelines.stage import Paths
from training.feed import FeedOptions
from training.shard_reader import ShardReader
from training.unpaired import UnpairedFeed

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def ray() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        with ray_session(ClusterConfig(num_cpus=2)):
            yield


def params(samples: Path) -> Params:
    small = {"kind": "images", "makes": "stills", "cut": "whole", "split": "source", "min_side_px": 64}
    paintings = {"source": str(samples / "paintings"), "smooth": True, "test_share": 0, "size_px": 128}
    sets = {
        "photos": {**small, "source": str(samples / "photos"), "size_px": 192},
        "anime": {**small, **paintings, "only": "anime-*"},
        "prints": {**small, **paintings, "only": "hokusai*", "test_share": 0.1},
    }
    return parse({"profile": "p", "profiles": {"p": {}}, "datasets": sets})


def test_sample_pictures_become_batches_of_squares_with_copies(samples: Path, tmp_path: Path) -> None:
    chosen, paths, tested = params(samples), Paths(tmp_path), {}
    for name in ("photos", "anime", "prints"):
        download.run(name, chosen, paths)
        crop.run(name, chosen, paths)
        report = shard.run(name, chosen, paths)
        assert report.rejected == []
        assert report.smooth == (name != "photos")
        tested[name] = (report.clips, report.clips_of_split.get("test", 0))
    assert tested == {"photos": (25, 6), "anime": (4, 0), "prints": (4, 1)}
    photos, anime = ShardReader(paths.shards("photos")), ShardReader(paths.shards("anime"))
    options = FeedOptions(seed=0, batch_size=8)
    with UnpairedFeed(photos, anime, options, size_px=64, crop=(0.4, 1.0), smooth=True) as feed:
        batch = feed.assemble(0)
    assert batch.smooth is not None
    assert batch.source.shape == batch.driving.shape == batch.smooth.shape == (8, 3, 64, 64)
    apart = (batch.smooth.float() - batch.driving.float()).abs().mean((1, 2, 3))
    assert 0.1 < apart.min() <= apart.max() < 20, "edges alone differ"
    with UnpairedFeed(photos, anime, options, "test", size_px=64) as feed:
        assert torch.equal(feed.assemble(0).source, feed.assemble(0).source)
