"""Clips and frames: arithmetic in seconds, against the same arithmetic in fractions and against counting."""

from fractions import Fraction

import numpy as np
import pytest

from clipbert_mm.datasets.transforms import SampleClips


def sample(
    total: int, fps: float, clips: int, frames: int, seconds: float = 1.0, seed: int | None = None, **options
) -> dict:
    """Sample; uniformly without a seed, at random with one."""
    options = dict(mode="uniform" if seed is None else "random") | options
    sampler = SampleClips(num_clips=clips, num_frames=frames, clip_seconds=seconds, **options)
    rng = None if seed is None else np.random.default_rng(seed)
    results = sampler.transform(dict(total_frames=total, avg_fps=fps, rng=rng))
    results["frame_inds"] = results["frame_inds"].reshape(clips, frames)
    return results


def exact_uniform_inds(total: int, fps: Fraction, clips: int, frames: int, seconds: Fraction) -> list[list[Fraction]]:
    """Where the frames of uniform clips lie, in frames, computed without rounding."""
    duration = total / fps
    length = min(seconds, duration)
    room = duration - length
    starts = [room / 2] if clips == 1 else [room * k / (clips - 1) for k in range(clips)]
    return [[(start + length * (2 * t + 1) / (2 * frames)) * fps for t in range(frames)] for start in starts]


@pytest.mark.parametrize(
    "fps", [Fraction(25), Fraction(25, 2), Fraction(30000, 1001), Fraction(24000, 1001), Fraction(8)]
)
@pytest.mark.parametrize(
    ("clips", "frames", "seconds"), [(1, 1, 1), (1, 4, 2), (2, 2, 1), (8, 2, 1), (16, 1, Fraction(1, 2))]
)
def test_uniform_clips_agree_with_exact_arithmetic(fps: Fraction, clips: int, frames: int, seconds: Fraction):
    compared = 0
    for total in (1, 2, 7, 13, 30, 99, 250, 1799):
        found = sample(total, float(fps), clips, frames, float(seconds))["frame_inds"]
        exact = exact_uniform_inds(total, fps, clips, frames, Fraction(seconds))
        for row, places in zip(found.tolist(), exact, strict=True):
            for index, place in zip(row, places, strict=True):
                if abs(place - round(place)) < 1e-9:  # on the edge between two frames either is right
                    assert index in (place, min(place, total - 1), place - 1)
                else:
                    assert index == int(place)
                    compared += 1
    assert compared > 0


@pytest.mark.parametrize("with_times", [True, False])
@pytest.mark.parametrize(("total", "fps"), [(80, 30.0), (451, 29.97), (33, 25.0), (8, 24.0), (5, 10.0)])
def test_segments_are_equal_parts_of_the_video_and_their_first_frames(total: int, fps: float, with_times: bool):
    """As in BLIP's reader, but for its rounding of the step to whole frames, which leaves out the end of most videos."""
    results = dict(total_frames=total, avg_fps=fps)
    if with_times:
        results |= dict(frame_times=np.arange(total) / fps, duration=total / fps)
    found = SampleClips(num_clips=8, num_frames=1, mode="segments").transform(results)
    assert found["frame_inds"].tolist() == [i * total // 8 for i in range(8)]
    edges = np.arange(9) * total / fps / 8
    np.testing.assert_allclose(found["clip_times"], np.stack([edges[:-1], edges[1:]], axis=1))
    in_one = SampleClips(num_clips=1, num_frames=8, mode="segments").transform(results)
    assert in_one["frame_inds"].tolist() == found["frame_inds"].tolist()


def test_segments_have_no_released_rule():
    with pytest.raises(ValueError, match="no compat in mode 'segments'"):
        SampleClips(num_clips=1, num_frames=1, mode="segments", compat="official")


def test_by_hand():
    # 10 s at 10 fps; clips of 1 s start at 0, 4.5 and 9 s, their two frames lie 0.25 and 0.75 s in.
    assert sample(100, 10, 3, 2)["frame_inds"].tolist() == [[2, 7], [47, 52], [92, 97]]
    assert sample(100, 10, 3, 2)["clip_times"].tolist() == [[0.0, 1.0], [4.5, 5.5], [9.0, 10.0]]
    # One clip is the middle one, one frame is the middle of its clip.
    assert sample(101, 10, 1, 1)["frame_inds"].tolist() == [[50]]
    # T frames a clip cover it evenly: a clip of 2 s at 4 fps has 8 frames, every second one is taken.
    assert sample(8, 4, 1, 4, seconds=2)["frame_inds"].tolist() == [[1, 3, 5, 7]]


@pytest.mark.parametrize("fps", [8.0, 12.5, 29.97])
def test_the_middle_clip_leaves_as_much_before_it_as_after_it(fps: float):
    for total in (3, 30, 99, 250):
        results = sample(total, fps, 1, 3, seconds=2, mode="middle")
        ((start, end),) = results["clip_times"]
        assert start == pytest.approx(total / fps - end)
        assert end - start == pytest.approx(min(2, total / fps))
        assert results["frame_inds"].tolist() == sample(total, fps, 1, 3, seconds=2)["frame_inds"].tolist()


@pytest.mark.parametrize("seed", [None, 0])
def test_a_video_shorter_than_a_clip_is_one_clip_that_covers_it(seed: int | None):
    results = sample(10, 25, clips=3, frames=2, seed=seed)  # 0.4 s
    assert results["frame_inds"].tolist() == [[2, 7]] * 3
    assert results["clip_times"] == pytest.approx(np.array([[0.0, 0.4]] * 3))
    assert sample(1, 25, clips=2, frames=3, seed=seed)["frame_inds"].tolist() == [[0, 0, 0]] * 2


def test_frames_lie_in_the_video_and_in_their_clips():
    rng = np.random.default_rng(0)
    for _ in range(500):
        total, fps = int(rng.integers(1, 400)), float(rng.choice([5, 12.5, 23.976, 29.97, 60]))
        clips, frames, seconds = int(rng.integers(1, 9)), int(rng.integers(1, 5)), float(rng.uniform(0.2, 3))
        for seed in (None, int(rng.integers(1000))):
            results = sample(total, fps, clips, frames, seconds, seed)
            inds, times = results["frame_inds"], results["clip_times"]
            assert inds.min() >= 0
            assert inds.max() < total
            assert (times[:, 0] >= 0).all()
            assert (times[:, 1] <= total / fps + 1e-9).all()
            assert times[:, 1] - times[:, 0] == pytest.approx(min(seconds, total / fps))
            # A frame lasts from inds / fps on for 1 / fps seconds.
            assert (inds / fps <= times[:, 1:] + 1e-9).all()
            assert ((inds + 1) / fps >= times[:, :1] - 1e-9).all()
            assert (np.diff(inds, axis=1) >= 0).all()


def test_random_clips_start_uniformly_and_each_on_its_own():
    total, fps, clips, draws = 300, 10, 2, 4000
    room = total / fps - 1
    sampler = SampleClips(num_clips=clips, num_frames=1)
    rng = np.random.default_rng(0)
    starts = np.array(
        [sampler.transform(dict(total_frames=total, avg_fps=fps, rng=rng))["clip_times"][:, 0] for _ in range(draws)]
    )
    counts, _ = np.histogram(starts, bins=10, range=(0, room))
    expected = draws * clips / 10
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected * 0.9)  # five standard deviations
    # Were a clip drawn from each half, both would never lie in the first one; independent, they do in a quarter of cases.
    both_early = (starts < room / 2).all(axis=1).mean()
    assert both_early == pytest.approx(0.25, abs=5 * np.sqrt(0.25 * 0.75 / draws))


def test_the_item_s_generator_decides():
    assert sample(300, 10, 4, 2, seed=1)["frame_inds"].tolist() == sample(300, 10, 4, 2, seed=1)["frame_inds"].tolist()
    assert sample(300, 10, 4, 2, seed=1)["frame_inds"].tolist() != sample(300, 10, 4, 2, seed=2)["frame_inds"].tolist()


@pytest.mark.parametrize(
    "wrong",
    [dict(num_clips=0), dict(num_frames=0), dict(clip_seconds=0.0), dict(mode="center")],
    ids=lambda w: next(iter(w)),
)
def test_wrong_options_are_refused(wrong: dict):
    with pytest.raises(ValueError, match=f"SampleClips expects num_clips >= 1, .* got .*{next(iter(wrong.values()))}"):
        SampleClips(**(dict(num_clips=2, num_frames=2) | wrong))


def test_a_second_middle_clip_is_refused():
    with pytest.raises(ValueError, match=r"SampleClips expects num_clips=1 in mode .middle., got num_clips=2"):
        SampleClips(num_clips=2, num_frames=2, mode="middle")


def test_another_compat_is_refused():
    with pytest.raises(ValueError, match=r"SampleClips expects compat None or 'official', got 'paper'\."):
        SampleClips(num_clips=2, num_frames=2, compat="paper")


@pytest.mark.parametrize("compat", [None, "official"])
def test_random_clips_need_a_generator(compat: str | None):
    with pytest.raises(ValueError, match="mode 'random' expects the random generator of the item under the key `rng`"):
        SampleClips(num_clips=2, num_frames=2, compat=compat).transform(dict(total_frames=10, avg_fps=5.0))


def official_inds(total: int, fps: Fraction, start: Fraction, frames: int, seconds: Fraction) -> list[Fraction]:
    """Where the release's frames of a clip lie, in frames, neither truncated nor held within the video."""
    last = start + seconds * fps - 1
    return [start + (last - start) * t / max(frames - 1, 1) for t in range(frames)]


def assert_truncated(found: list[int], exact: list[Fraction], total: int) -> None:
    """Compare indices with exact places; on the edge between two frames either is right."""
    for index, place in zip(found, exact, strict=True):
        either = {int(place + Fraction(e, 10**9)) for e in (-1, 1)}  # truncated
        assert index in {min(max(i, 0), total - 1) for i in either}


@pytest.mark.parametrize("fps", [Fraction(25), Fraction(25, 2), Fraction(2997, 100), Fraction(1, 2)])
@pytest.mark.parametrize(
    ("clips", "frames", "seconds"), [(1, 1, 1), (1, 4, 2), (2, 2, 1), (8, 2, 1), (5, 3, Fraction(1, 2))]
)
def test_official_clips_agree_with_exact_arithmetic(fps: Fraction, clips: int, frames: int, seconds: Fraction):
    for total in (1, 2, 7, 13, 30, 99, 250, 1799):
        room = max(total - seconds * fps, 0)
        options = dict(frames=frames, seconds=float(seconds), compat="official")
        uniform = sample(total, float(fps), clips, **options)
        for i in range(clips):
            start = room * i / clips
            assert_truncated(
                uniform["frame_inds"][i].tolist(), official_inds(total, fps, start, frames, seconds), total
            )
            assert uniform["clip_times"][i, 0] == pytest.approx(float(start / fps))
        middle = sample(total, float(fps), 1, mode="middle", **options)["frame_inds"][0].tolist()
        assert_truncated(middle, official_inds(total, fps, room / 3, frames, seconds), total)
        drawn = sample(total, float(fps), clips, seed=total, **options)
        for row, (begin, _) in zip(drawn["frame_inds"].tolist(), drawn["clip_times"], strict=True):
            assert 0 <= begin * fps <= room + 1e-9
            start = Fraction(float(begin)) * fps
            assert_truncated(row, official_inds(total, fps, start, frames, seconds), total)


def test_official_by_hand():
    # 100 frames at 10 fps: clips of 10 frames start at 0, 30 and 60, their frames go from the first to the last.
    assert sample(100, 10, 3, 2, compat="official")["frame_inds"].tolist() == [[0, 9], [30, 39], [60, 69]]
    assert sample(100, 10, 1, 1, compat="official")["frame_inds"].tolist() == [[0]]
    assert sample(100, 10, 1, 4, mode="middle", compat="official")["frame_inds"].tolist() == [[30, 33, 36, 39]]
    # A video shorter than the clip: what lies behind its end is its last frame.
    assert sample(6, 10, 2, 4, compat="official")["frame_inds"].tolist() == [[0, 3, 5, 5]] * 2
    assert sample(6, 10, 2, 4, compat="official")["clip_times"].tolist() == [[0.0, 0.6]] * 2


def test_official_random_starts_are_uniform_up_to_the_last_possible_one():
    sampler = SampleClips(num_clips=1, num_frames=1, compat="official")
    rng = np.random.default_rng(0)
    draws = [sampler.transform(dict(total_frames=35, avg_fps=5, rng=rng))["frame_inds"][0] for _ in range(3000)]
    counts = np.bincount(draws)  # room is 30 frames
    assert len(counts) == 30
    assert np.abs(counts - 100).max() < 5 * np.sqrt(100)  # five standard deviations


@pytest.mark.parametrize("clips", [2, 4, 16])
def test_official_uniform_clips_never_see_the_end_and_ours_do(clips: int):
    total, fps = 600, 20
    official = sample(total, fps, clips, 2, compat="official")
    assert official["clip_times"].max() == pytest.approx(30 - 29 / clips)
    assert official["frame_inds"].max() < total - (total - fps) / clips
    assert sample(total, fps, clips, 2)["clip_times"].max() == pytest.approx(30)


def sample_by_number(total: int, fps: float, seed: int, **options) -> tuple[np.ndarray, np.ndarray]:
    """The arithmetic as it was before there were time stamps: frame_inds and clip_times."""
    sampler, rng = SampleClips(**options), np.random.default_rng(seed)
    length = sampler.clip_seconds * fps
    if sampler.compat is None:
        length = min(length, total)
        offsets = (np.arange(sampler.num_frames) + 0.5) * length / sampler.num_frames
    else:
        offsets = np.linspace(0, length - 1, sampler.num_frames)
    starts = sampler.clip_starts(max(total - length, 0.0), rng)
    wanted = starts[:, None] + offsets
    inds = np.clip(wanted.astype(np.int64), 0, total - 1).reshape(-1)
    return inds, np.stack([starts, np.minimum(starts + length, total)], axis=1) / fps


@pytest.mark.parametrize("compat", [None, "official"])
@pytest.mark.parametrize("mode", ["random", "uniform", "middle"])
def test_m1_a_constant_rate_gives_the_very_frames_of_before(mode: str, compat: str | None):
    draw = np.random.default_rng(0)
    for seed in range(700):
        total, fps = int(draw.integers(1, 5000)), float(draw.choice([24000 / 1001, 25, 30000 / 1001, 60, 12.5, 1, 0.3]))
        options = dict(
            num_clips=1 if mode == "middle" else int(draw.integers(1, 33)),
            num_frames=int(draw.integers(1, 17)),
            clip_seconds=float(draw.choice([0.1, 0.5, 1, 2, 1 / 3, 20])),
            mode=mode,
            compat=compat,
        )
        inds, times = sample_by_number(total, fps, seed, **options)
        for more in ({}, dict(frame_times=None, duration=total / fps)):  # {}: as a reader of someone else's has it
            video = dict(total_frames=total, avg_fps=fps, rng=np.random.default_rng(seed)) | more
            found = SampleClips(**options).transform(video)
            assert found["frame_inds"].dtype == inds.dtype
            assert found["frame_inds"].tobytes() == inds.tobytes()
            assert found["clip_times"].tobytes() == times.tobytes()


def uneven_video(rng: np.random.Generator) -> dict:
    """A video whose frames are on screen for 1 to 4000 ms each."""
    shown = rng.integers(1, rng.choice([5, 60, 4000]), int(rng.integers(1, 200)))  # milliseconds
    times = np.concatenate([[0], np.cumsum(shown)]) / 1000
    # The mean rate is what a header says, which may be anything.
    return dict(
        total_frames=len(shown),
        avg_fps=float(rng.choice([25, 1000])),
        frame_times=times[:-1],
        duration=float(times[-1]),
    )


def test_m1_uneven_frames_are_those_on_screen_at_the_wanted_seconds():
    rng = np.random.default_rng(1)
    for seed in range(300):
        video = uneven_video(rng)
        clips, frames, seconds = int(rng.integers(1, 9)), int(rng.integers(1, 5)), float(rng.choice([0.05, 1, 2, 700]))
        mode = ("uniform", "random")[seed % 2]
        sampler = SampleClips(num_clips=clips, num_frames=frames, clip_seconds=seconds, mode=mode)
        found = sampler.transform(video | dict(rng=np.random.default_rng(seed)))
        duration, length = video["duration"], min(seconds, video["duration"])
        room = duration - length
        starts = (
            np.sort(np.random.default_rng(seed).uniform(0, room, clips))
            if mode == "random"
            else (np.array([room / 2]) if clips == 1 else np.linspace(0, room, clips))
        )
        assert found["clip_times"] == pytest.approx(np.stack([starts, starts + length], axis=1))
        ends = [*video["frame_times"][1:], duration]
        for row, start in zip(found["frame_inds"].reshape(clips, frames), starts, strict=True):
            for t, index in enumerate(row):
                wanted = start + length * (2 * t + 1) / (2 * frames)
                assert video["frame_times"][index] <= wanted + 1e-9, "it has appeared by then"
                assert wanted - 1e-9 <= ends[index], "the next one has not"


def test_m1_uneven_frames_by_hand():
    # Three frames: on screen from 0, 0.1 and 9 s on; the video ends at 10 s.
    video = dict(total_frames=3, avg_fps=25.0, frame_times=np.array([0, 0.1, 9.0]), duration=10.0)
    found = SampleClips(num_clips=3, num_frames=2, mode="uniform").transform(dict(video))
    assert found["frame_inds"].tolist() == [1, 1, 1, 1, 2, 2]
    assert found["clip_times"].tolist() == [[0.0, 1.0], [4.5, 5.5], [9.0, 10.0]]
    # A clip longer than the video is the whole of it, by time: at 2.5 and 7.5 s, not the first and the last third.
    found = SampleClips(num_clips=2, num_frames=2, clip_seconds=60, mode="uniform").transform(dict(video))
    assert found["frame_inds"].tolist() == [1, 1, 1, 1]
    assert found["clip_times"].tolist() == [[0.0, 10.0]] * 2


def test_m1_the_released_rule_counts_frames_and_its_clips_are_named_by_their_time():
    video = dict(total_frames=4, avg_fps=2.0, frame_times=np.array([0, 1.0, 5.0, 6.0]), duration=8.0)
    options = dict(num_clips=2, num_frames=2, mode="uniform", compat="official")
    found = SampleClips(**options).transform(dict(video))
    assert found["frame_inds"].tolist() == sample_by_number(4, 2.0, 0, **options)[0].tolist() == [0, 1, 1, 2]
    assert found["clip_times"].tolist() == [[0.0, 5.0], [1.0, 6.0]]
