"""The Shapes world: what is drawn is what is told, and the seed decides both."""

import hashlib
import json
import re
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from clipbert_mm.datasets.shapes import scenes
from clipbert_mm.datasets.shapes.scenes import (
    BACKGROUNDS,
    COLORS,
    Scene,
    ShapeObject,
    draw_scene,
    random_story,
    write_video,
)
from clipbert_mm.datasets.shapes.world import ShapesWorld


def scene_of(shape: str = "circle", background: str = "black", seconds: float = 1.0, **other) -> Scene:
    """A scene of one shape."""
    item = dict(shape=shape, color="red", size="large", start=(0.5, 0.5), velocity=(0.0, 0.0)) | other
    return Scene((ShapeObject(**item),), background, seconds)


def center_of(frame: np.ndarray, scene: Scene) -> np.ndarray:
    """The center of mass, (x, y), of what is not background."""
    rows, columns = np.nonzero(np.abs(frame.astype(int) - BACKGROUNDS[scene.background]).sum(axis=2) > 60)
    return np.array([columns.mean(), rows.mean()])


def digests(folder: Path) -> dict[str, str]:
    """A digest of every file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_seed_decides_every_byte(tmp_path: Path):
    sizes = dict(images=3, test_images=2, train_videos=2, test_videos=1)
    ShapesWorld(seed=1, **sizes).write(tmp_path / "a")
    ShapesWorld(seed=1, **sizes).write(tmp_path / "b")
    ShapesWorld(seed=2, **sizes).write(tmp_path / "c")
    first, again, other = (digests(tmp_path / name) for name in "abc")
    assert first == again
    assert first.keys() == other.keys()
    assert {name for name, _ in first.items() & other.items()} == {"answers.json"}, "the vocabulary is the world's"
    images = [digest for name, digest in first.items() if name.endswith(".jpg")]
    assert len(images) == len(set(images)) == 5, "the held-out ones are others"


def test_the_same_story_is_the_same_file(tmp_path: Path):
    story = random_story(np.random.default_rng(6))  # with macroblock trees, x264 writes it in several ways
    for i in range(16):
        write_video(tmp_path / f"{i}.mp4", story, (96, 96), 10)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_a_world_that_is_there_is_kept_and_another_one_is_not_overwritten(tmp_path: Path):
    world = ShapesWorld(images=1, test_images=1, train_videos=2, test_videos=1)
    assert world.write(tmp_path / "a")
    before = digests(tmp_path / "a")
    assert not world.write(tmp_path / "a")
    with pytest.raises(FileExistsError, match=r"exists and is not the Shapes world .*'images': 2"):
        ShapesWorld(images=2, test_images=1, train_videos=2, test_videos=1).write(tmp_path / "a")
    assert digests(tmp_path / "a") == before


def test_a_world_that_could_not_be_finished_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full_disk(*args) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(scenes, "write_video", full_disk)
    with pytest.raises(OSError, match="No space left"):
        ShapesWorld(images=1, test_images=1, train_videos=1, test_videos=1).write(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def captions_of(file: Path, key: str = "video") -> dict[str, list[str]]:
    """The captions of each file, in their order."""
    captions: dict[str, list[str]] = {}
    for record in map(json.loads, file.read_text().splitlines()):
        captions.setdefault(record[key], []).append(record["caption"])
    return captions


def named(item: dict) -> str:
    """A shape as captions name it."""
    return f"{'an' if item['color'] == 'orange' else 'a'} {item['color']} {item['shape']}"


def test_captions_tell_the_scenes_in_their_order(world: Path):
    stories = json.loads((world / "world.json").read_text())["videos"]
    for split, count in (("train", 3), ("test", 2)):
        captions = captions_of(world / f"{split}.jsonl")
        assert captions.keys() == stories[split].keys()
        for name, texts in captions.items():
            scenes = [{named(item) for item in scene["objects"]} for scene in stories[split][name]]
            assert len(set(map(frozenset, scenes))) == len(scenes) in (2, 3)
            assert len(set(texts)) == len(texts)
            assert len(texts) == count
            for text in texts:
                phrases = text.removeprefix("the video shows ").removeprefix("first ").split(", then ")
                assert [set(phrase.split(" and ")) for phrase in phrases] == scenes


PART = re.compile(
    r"an? ((?P<size>small|large) )?(?P<color>[a-z]+) (?P<shape>[a-z]+)"
    r"( (?P<motion>moving sideways|moving up and down|standing still))?"
)


def shows(scene: dict, text: str) -> bool:
    """Whether a scene shows what a partial caption tells, read from its words."""
    text, _, background = text.partition(" on ")
    parts = [found.groupdict() for found in PART.finditer(text)]
    left = PART.sub("", text).replace(" and ", "")
    assert parts, text
    assert left == "", text
    motions = {(False, False): "standing still", (True, False): "moving sideways", (False, True): "moving up and down"}
    for part in parts:
        if not any(
            (item["color"], item["shape"]) == (part["color"], part["shape"])
            and part["size"] in (None, item["size"])
            and part["motion"] in (None, motions[item["velocity"][0] != 0, item["velocity"][1] != 0])
            for item in scene["objects"]
        ):
            return False
    return background in ("", scene["background"])


@pytest.fixture(scope="module")
def searched_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world with partial captions."""
    folder = tmp_path_factory.mktemp("shapes") / "world"
    ShapesWorld(seed=3, images=30, test_images=10, train_videos=8, test_videos=2).write(folder)
    return folder


def test_partial_captions_name_each_shape_and_tell_a_part_of_a_scene(searched_world: Path):
    world = searched_world
    stories = json.loads((world / "world.json").read_text())["videos"]["train"]
    details = set()
    for name, texts in captions_of(world / "train.jsonl").items():
        partial = [text for text in texts if ", then " not in text]
        assert len(texts) - len(partial) == 3
        assert {named(item) for scene in stories[name] for item in scene["objects"]} <= set(partial)
        assert all(any(shows(scene, text) for scene in stories[name]) for text in partial)
        details.update(
            word for text in partial for word in (" on ", "large", "small", "moving", " and ") if word in text
        )
    assert details == {" on ", "large", "small", "moving", " and "}


def test_partial_captions_of_images_tell_no_motion(searched_world: Path):
    world = searched_world
    captions = captions_of(world / "pretrain.jsonl", "image")
    assert not any(word in text for texts in captions.values() for text in texts for word in ("moving", "still"))
    assert any(" on " in text for texts in captions.values() for text in texts)
    assert all(len(set(texts)) == len(texts) for texts in captions.values())
    assert any(
        " on " in text for texts in captions_of(world / "pretrain_test.jsonl", "image").values() for text in texts
    )


def test_videos_are_h264_of_the_told_length_and_rate(world: Path):
    stories = json.loads((world / "world.json").read_text())["videos"]
    rates = set()
    for name, story in (stories["train"] | stories["test"]).items():
        with av.open(str(world / "videos" / name)) as container:
            stream = container.streams.video[0]
            fps = float(stream.average_rate)
            assert stream.codec_context.name == "h264"
            assert stream.frames == sum(round(scene["seconds"] * fps) for scene in story)
            assert (stream.width, stream.height) in scenes.FRAME_SIZES
            rates.add(fps)
    assert rates <= set(scenes.FRAME_RATES)
    assert len(rates) > 1


@pytest.mark.parametrize("fps", [10, 12.5, 30000 / 1001])
def test_frames_of_a_video_are_the_scenes_drawn(tmp_path: Path, decode_with_pyav, fps: float):
    scenes = (scene_of("square"), scene_of("ring", "white", color="blue", velocity=(0.2, 0.1)))
    write_video(tmp_path / "a.mp4", scenes, (120, 160), fps)
    frames = decode_with_pyav(tmp_path / "a.mp4").astype(float)
    count = round(fps)
    assert len(frames) == 2 * count
    for scene, first in zip(scenes, (0, count), strict=True):
        for i in (0, count - 1):
            drawn = draw_scene(scene, i / fps, 120, 160)
            assert np.abs(frames[first + i] - drawn).mean() < 6  # what H.264 loses, mostly along edges
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].average_rate == Fraction(fps).limit_denominator(1001)


@pytest.mark.parametrize("color", COLORS)
def test_a_shape_has_its_color_on_its_background(color: str):
    frame = draw_scene(scene_of(color=color, background="gray"), 0.0, 96, 64)
    assert tuple(frame[32, 48]) == COLORS[color]
    assert tuple(frame[0, 0]) == tuple(frame[-1, -1]) == (BACKGROUNDS["gray"],) * 3


def test_kinds_of_shapes_cover_what_their_geometry_says():
    covered = {}
    for shape in scenes.SHAPES:
        red = draw_scene(scene_of(shape), 0, 400, 400)[..., 0].astype(float)
        covered[shape] = ((red - 8) / (225 - 8)).sum()  # smooth edges count in part
    radius = 0.3 * 400
    thick = round(radius * 0.35)
    areas = {
        "circle": np.pi * radius**2,
        "square": (2 * 0.88 * radius) ** 2,
        "triangle": 0.95 * 1.8 * radius**2,
        "star": 10 * 0.5 * 0.42 * np.sin(np.pi / 5) * radius**2,
        "cross": (4 * 0.33 * 2 - 4 * 0.33**2) * radius**2,
        "ring": np.pi * (radius**2 - (radius - thick) ** 2),
    }
    for shape in scenes.SHAPES:
        assert covered[shape] == pytest.approx(areas[shape], rel=0.05), shape


def test_a_shape_comes_back_from_the_edges():
    # The twin moves the shape in small steps and turns it round wherever it would leave.
    width, height, seconds = 160, 120, 7.0
    scene = scene_of(velocity=(0.4, -0.3), start=(0.7, 0.2))
    radius = 0.3 * height
    low, high = np.array([radius, radius]), np.array([width - radius, height - radius])
    place, speed = low + np.array([0.7, 0.2]) * (high - low), np.array([0.4 * width, -0.3 * height])
    steps = 70_000
    for _ in range(steps):
        place = place + speed * seconds / steps
        speed = np.where((place < low) | (place > high), -speed, speed)
        place = np.clip(place, low, high)
    assert center_of(draw_scene(scene, seconds, width, height), scene) == pytest.approx(place, abs=1.0)
