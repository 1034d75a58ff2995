"""The global sequence of samples: what it is made of, and that nothing but its key decides it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.contracts import ShardClip
from models.errors import ClipError, ParamsError
from training.feed import FeedOptions, PairSequence, Sample


def make_clips(lengths: Sequence[int], num_identities: int = 3) -> list[ShardClip]:
    return [
        ShardClip(
            id=f"clip-{place:02d}",
            split="train",
            identity=f"person-{place % num_identities}",
            num_frames=length,
            fps=25.0,
            shard=0,
            row=place,
        )
        for place, length in enumerate(lengths)
    ]


def samples(sequence: PairSequence, num_steps: int, start: int = 0) -> dict[int, Sample]:
    return {index: sequence.sample(index) for step in range(start, start + num_steps) for index in sequence.step(step)}


clip_lengths = st.lists(st.integers(1, 30), min_size=1, max_size=9)


@settings(max_examples=40, deadline=None)
@given(
    lengths=clip_lengths,
    seed=st.integers(0, 2**31),
    local=st.integers(1, 3),
    id_sampling=st.booleans(),
    repeats=st.integers(1, 3),
)
def test_ranks_share_one_sequence(lengths: list[int], seed: int, local: int, id_sampling: bool, repeats: int) -> None:
    options = {"seed": seed, "batch_size": 4 * local, "id_sampling": id_sampling, "num_repeats": repeats}
    clips, num_steps = make_clips(lengths), 4
    alone = samples(PairSequence(clips, FeedOptions(**options)), num_steps)
    assert sorted(alone) == list(range(num_steps * 4 * local))
    for world_size in (2, 4):
        together: dict[int, Sample] = {}
        for rank in range(world_size):
            own = samples(PairSequence(clips, FeedOptions(**options, rank=rank, world_size=world_size)), num_steps)
            assert all(index % world_size == rank for index in own)
            assert not together.keys() & own.keys()
            together |= own
        assert together == alone


@pytest.mark.parametrize("world_size", [3, 5, 6])
def test_a_rank_keeps_its_residue_in_every_step(world_size: int) -> None:
    for rank in range(world_size):
        options = FeedOptions(batch_size=world_size * 2, rank=rank, world_size=world_size)
        sequence = PairSequence(make_clips([5]), options)
        for step in range(7):
            indices = list(sequence.step(step))
            start = step * options.batch_size
            assert indices == [i for i in range(start, start + options.batch_size) if i % world_size == rank]


@settings(max_examples=30, deadline=None)
@given(lengths=clip_lengths, seed=st.integers(0, 1000), repeats=st.integers(1, 4), epoch=st.integers(0, 50))
def test_an_epoch_visits_every_item_once(lengths: list[int], seed: int, repeats: int, epoch: int) -> None:
    sequence = PairSequence(make_clips(lengths), FeedOptions(seed=seed, num_repeats=repeats))
    size = sequence.items_per_epoch
    assert size == len(lengths) * repeats
    drawn = Counter(sequence.sample(epoch * size + place).clip.id for place in range(size))
    assert set(drawn.values()) == {repeats}
    assert len(drawn) == len(lengths)


def test_identities_are_visited_once_an_epoch_and_their_clips_drawn() -> None:
    clips = make_clips([9] * 12, num_identities=3)
    sequence = PairSequence(clips, FeedOptions(id_sampling=True, num_repeats=2))
    assert sequence.items_per_epoch == 6
    seen: set[str] = set()
    for epoch in range(20):
        drawn = [sequence.sample(epoch * 6 + place).clip for place in range(6)]
        assert Counter(clip.identity for clip in drawn) == {"person-0": 2, "person-1": 2, "person-2": 2}
        seen |= {clip.id for clip in drawn}
    assert seen == {clip.id for clip in clips}


def test_order_and_pairs_change_with_the_epoch_and_the_seed() -> None:
    clips = make_clips([30] * 16)
    one, other = (PairSequence(clips, FeedOptions(seed=seed)) for seed in (0, 1))
    first, second = [one.sample(i) for i in range(16)], [one.sample(i) for i in range(16, 32)]
    assert [s.clip.id for s in first] != [s.clip.id for s in second]
    assert first != [other.sample(i) for i in range(16)]
    assert first == [PairSequence(clips, FeedOptions(seed=0)).sample(i) for i in range(16)]


def test_the_order_of_the_index_does_not_matter() -> None:
    clips = make_clips([7] * 10)
    forward, backward = (PairSequence(rows, FeedOptions()) for rows in (clips, clips[::-1]))
    assert [forward.sample(i) for i in range(40)] == [backward.sample(i) for i in range(40)]


@settings(max_examples=30, deadline=None)
@given(length=st.integers(1, 40), index=st.integers(0, 10_000))
def test_a_pair_is_two_frames_in_order_of_time(length: int, index: int) -> None:
    sequence = PairSequence(make_clips([length]), FeedOptions(flip_time=False))
    sample = sequence.sample(index)
    assert 0 <= sample.source <= sample.driving < length
    assert (sample.source < sample.driving) == (length > 1)


def test_every_pair_is_about_equally_likely() -> None:
    sequence = PairSequence(make_clips([4]), FeedOptions(flip_time=False))
    drawn = Counter((s.source, s.driving) for s in map(sequence.sample, range(3000)))
    assert len(drawn) == 6
    assert max(drawn.values()) < 1.3 * min(drawn.values())


def test_flips_are_drawn_apart_from_the_pair() -> None:
    clips = make_clips([20] * 4)
    plain = PairSequence(clips, FeedOptions(flip_horizontal=False, flip_time=False))
    flipped = PairSequence(clips, FeedOptions())
    pairs = [(plain.sample(i), flipped.sample(i)) for i in range(400)]
    assert all(a.clip == b.clip and {a.source, a.driving} == {b.source, b.driving} and not a.mirrored for a, b in pairs)
    swapped = [a.source != b.source for a, b in pairs]
    mirrored = [b.mirrored for _, b in pairs]
    assert 150 < sum(swapped) < 250
    assert 150 < sum(mirrored) < 250
    assert 60 < sum(s and m for s, m in zip(swapped, mirrored, strict=True)) < 140


def test_the_first_samples_of_seed_0_are_these_for_ever() -> None:
    """A change here breaks the resuming of trainings that older versions began."""
    sequence = PairSequence(make_clips([30] * 4), FeedOptions())
    found = [(s.clip.row, s.source, s.driving, s.mirrored) for s in map(sequence.sample, range(6))]
    assert found == [
        (2, 12, 14, False),
        (1, 9, 16, False),
        (0, 9, 3, False),
        (3, 5, 16, False),
        (1, 24, 26, False),
        (0, 11, 9, False),
    ]


def test_no_clip_is_an_error() -> None:
    with pytest.raises(ClipError, match="must have a clip"):
        PairSequence([], FeedOptions())


def test_all_wrong_options_are_told_at_once() -> None:
    with pytest.raises(ParamsError) as caught:
        FeedOptions(batch_size=5, world_size=2, rank=2, threads=0)
    assert {problem.key for problem in caught.value.problems} == {"batch_size", "rank", "threads"}
