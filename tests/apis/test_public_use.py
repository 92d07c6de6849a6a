"""Index, search, rank, ask and explain with public models of random weights, on real videos."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from public_models import write_blip, write_clip, write_siglip, write_vilt
from transformers import (
    AutoTokenizer,
    BlipForQuestionAnswering,
    ViltForImageAndTextRetrieval,
    ViltForQuestionAnswering,
)

from clipbert_mm.__main__ import main
from clipbert_mm.apis import VideoQA, VideoSearch
from clipbert_mm.apis.pooling import AGGREGATORS, POOLINGS
from clipbert_mm.errors import CheckpointError, OptionError, VideoIndexError

WRITE: dict[str, Callable[[Path], Any]] = {
    "blip": write_blip,
    "clip": write_clip,
    "siglip": write_siglip,
    "vilt": partial(write_vilt, kind=ViltForImageAndTextRetrieval),
    "blip-vqa": partial(write_blip, kind=BlipForQuestionAnswering, visual_size=32),
    "vilt-vqa": partial(write_vilt, kind=ViltForQuestionAnswering, id2label={0: "no", 1: "yes", 2: "red"}),
}
KINDS = dict(blip="logit + similarity", clip="cosine", siglip="cosine", vilt="rank")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A folder of each family, whose first opening is done."""
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    made = {}
    for name, write in WRITE.items():
        made[name] = str(tmp_path_factory.mktemp("public") / name)
        write(Path(made[name]))
    yield made
    patch.undo()


@pytest.fixture(scope="module")
def videos(world: Path) -> list[str]:
    return [str(path) for path in sorted((world / "videos").glob("test_*.mp4"))[:3]]


@pytest.mark.parametrize("family", KINDS)
def test_search_equals_ranking_each_video(
    family: str, folders: dict[str, str], videos: list[str], tmp_path: Path
) -> None:
    search = VideoSearch(folders[family], index=tmp_path / "index")
    assert len(search.index(videos, workers=1).added) == 3
    found = search.search("a red circle")
    assert found.score_kind == KINDS[family]
    assert found.model == f"{folders[family]} (digest {search.predictor.identity})"
    ranked = {path: search.rank(path, ["a red circle", "two people"]) for path in videos}
    assert {hit.path for hit in found.hits} == set(videos)
    clips = 12 if family in ("clip", "siglip") else 8
    for hit in found.hits:
        (text,) = (each for each in ranked[hit.path].texts if each.text == "a red circle")
        assert hit.score == pytest.approx(text.score, abs=2e-2)  # the index holds half precision
        assert len(hit.moments) == len(text.moments) == clips
        assert hit.moment == max(hit.moments, key=lambda moment: moment.score)
        assert (hit.probability is None) == (family in ("clip", "vilt"))
    explained = search.explain("a red circle", found.hits[0].path, tmp_path / "why.png")
    assert explained.heat.shape == explained.frames.shape[1:3]
    assert (explained.heat.max() > 0) == (family not in ("clip", "siglip"))  # a vector is of the whole frame
    assert Image.open(tmp_path / "why.png").size[0] > 300
    with pytest.raises(VideoIndexError, match="was made by"):
        VideoSearch(folders["clip" if family == "blip" else "blip"], index=tmp_path / "index")


def test_the_score_of_a_video_is_the_published_one(folders: dict[str, str], videos: list[str]) -> None:
    """BLIP: eight frames at the starts of equal parts, their tokens concatenated, [ENC] first, logit + similarity."""
    import av
    from transformers import BlipForImageTextRetrieval, BlipImageProcessor

    search = VideoSearch(folders["blip"])
    found = search.rank(videos[0], ["a red circle"]).texts[0]
    with av.open(videos[0]) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    chosen = [frames[i * len(frames) // 8] for i in range(8)]
    library = BlipForImageTextRetrieval.from_pretrained(folders["blip"]).eval()
    pixels = BlipImageProcessor.from_pretrained(folders["blip"])(chosen, return_tensors="pt").pixel_values
    ids = torch.tensor([AutoTokenizer.from_pretrained(folders["blip"])("a red circle").input_ids])
    joint = torch.cat([torch.tensor([[library.config.text_config.vocab_size - 1]]), ids[:, 1:]], dim=1)
    with torch.no_grad():
        images = library.vision_model(pixels).last_hidden_state
        states = library.text_encoder(
            input_ids=joint, encoder_hidden_states=images.flatten(0, 1)[None]
        ).last_hidden_state
        logits = library.itm_head(states[0, 0])
        text = library.text_proj(library.text_encoder(input_ids=ids).last_hidden_state[0, 0])
        similarity = torch.cosine_similarity(library.vision_proj(images[:, 0]).mean(dim=0), text, dim=0)
    assert found.score == pytest.approx(float(logits[1] + similarity), abs=2e-3)
    assert found.probability == pytest.approx(float(logits.softmax(dim=0)[1]), abs=1e-3)


def test_pooling_by_a_word(folders: dict[str, str], videos: list[str]) -> None:
    search = {pooling: VideoSearch(folders["vilt"], pooling=pooling) for pooling in (*AGGREGATORS, "concat")}
    texts = {pooling: each.rank(videos[0], ["a red circle"]).texts[0] for pooling, each in search.items()}
    clips = np.array([moment.score for moment in texts["mean"].moments])
    assert texts["mean"].score == pytest.approx(clips.mean(), abs=1e-4)
    assert texts["max"].score == pytest.approx(clips.max(), abs=1e-4)
    assert texts["logsumexp"].score == pytest.approx(np.log(np.exp(clips).mean()), abs=1e-4)
    assert len({round(text.score, 5) for text in texts.values()}) == 5
    np.testing.assert_allclose([moment.score for moment in texts["concat"].moments], clips, atol=1e-4)
    vectors = VideoSearch(folders["clip"], pooling="mean").rank(videos[0], ["a red circle"]).texts[0]
    assert vectors.score == pytest.approx(np.mean([moment.score for moment in vectors.moments]), abs=1e-5)


@pytest.mark.parametrize(
    ("family", "pooling", "message"),
    [
        ("clip", "concat", "does not go with a CLIPText, which reads vectors. Use 'mean-vector'"),
        ("blip", "mean-vector", "does not go with a CrossEncoder, which reads visual tokens. Use 'concat'"),
        ("blip", "median", f"is one of {', '.join(POOLINGS)}, got 'median'"),
    ],
)
def test_a_pooling_that_does_not_fit_is_refused(
    family: str, pooling: str, message: str, folders: dict[str, str]
) -> None:
    with pytest.raises(OptionError, match=message):
        VideoSearch(folders[family], pooling=pooling)


def test_questions_with_candidates(folders: dict[str, str], videos: list[str], tmp_path: Path) -> None:
    qa = VideoQA(folders["blip-vqa"])
    result = qa.ask(videos[0], "what color is the circle", ["red", "blue", "a dog"])
    assert result.score_kind == "log-probability"
    assert sum(answer.probability for answer in result.answers) == pytest.approx(1, abs=1e-4)
    assert {answer.text for answer in result.answers} == {"red", "blue", "a dog"}
    (tmp_path / "answers.json").write_text(json.dumps({"red": 0, "blue": 1, "a dog": 2}))
    vocabulary = VideoQA(folders["blip-vqa"], answers=tmp_path / "answers.json")
    again = vocabulary.ask(videos[0], "what color is the circle")
    assert [answer.text for answer in again.answers] == [answer.text for answer in result.answers]
    assert again.answers[0].score == pytest.approx(result.answers[0].score, abs=1e-5)
    explained = qa.explain(videos[0], "what color is the circle", ["red", "blue", "a dog"], tmp_path / "why.png")
    assert explained.answer == result.answers[0].text
    assert explained.score == pytest.approx(result.answers[0].score, abs=1e-4)
    with pytest.raises(OptionError, match=r"rates candidate answers, and none were given. Give each with --option"):
        qa.ask(videos[0], "what color is the circle")
    with pytest.raises(OptionError, match="candidate answers and expects two or more different options"):
        qa.ask(videos[0], "what color is the circle", ["red"])
    with pytest.raises(OptionError, match="answers= goes with a model that rates candidate answers"):
        VideoQA(folders["vilt-vqa"], answers=tmp_path / "answers.json")


def test_questions_with_the_model_s_answers(folders: dict[str, str], videos: list[str], tmp_path: Path) -> None:
    qa = VideoQA(folders["vilt-vqa"])
    result = qa.ask(videos[0], "what color is the circle")
    assert {answer.text for answer in result.answers} == {"no", "yes", "red"}
    assert all(0 < answer.probability < 1 for answer in result.answers)
    qa.explain(videos[0], "what color is the circle", out_file=tmp_path / "why.png")
    with pytest.raises(OptionError, match="which has no options"):
        qa.ask(videos[0], "what color is the circle", ["red", "no"])
    with pytest.raises(OptionError, match="VideoQA needs a model trained for questions"):
        VideoQA(folders["vilt"])


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return ended.value.code


def test_the_command_line(
    folders: dict[str, str], videos: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = str(tmp_path / "index")
    assert command("index", *videos, "--model", folders["blip"], "--index", index, "--workers", "1") == 0
    assert command("search", "a red circle", "--index", index, "--json") == 0  # by the model that the index names
    printed = capsys.readouterr().out
    found = json.loads(printed[printed.index("{") :])
    assert (found["score_kind"], len(found["hits"])) == ("logit + similarity", 3)
    assert command("rank", videos[0], "a dog", "a cat", "--model", folders["clip"], "--pooling", "max") == 0
    assert "cosine" in capsys.readouterr().out
    question = ("ask", videos[0], "what color", "--model", folders["blip-vqa"])
    assert command(*question, "--option", "red", "--option", "blue") == 0
    assert command(*question) == 1
    assert "Give each with --option on the command line" in capsys.readouterr().err
    assert command("index", *videos, "--model", "Salesforce/blip-itm-base-coco", "--index", index) == 1
    error = capsys.readouterr().err
    assert "offline mode forbids" in error
    assert len(error.strip().splitlines()) == 1


def test_a_text_of_more_tokens_than_the_model_takes_is_refused(folders: dict[str, str], videos: list[str]) -> None:
    with pytest.raises(OptionError, match=r"has \d+ tokens, and the model takes at most 35"):
        VideoSearch(folders["blip"]).rank(videos[0], ["a red circle " * 20])


def test_an_image_is_a_video_of_one_frame(folders: dict[str, str], tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 40, 3), np.uint8)).save(tmp_path / "photo.png")
    for family in KINDS:
        (text,) = VideoSearch(folders[family]).rank(tmp_path / "photo.png", ["a red circle"]).texts
        assert text.moments == ()
    result = VideoQA(folders["vilt-vqa"]).ask(tmp_path / "photo.png", "what color is it")
    assert len(result.answers) == 3


def test_an_image_of_one_row_is_answered_or_refused(folders: dict[str, str], tmp_path: Path) -> None:
    Image.fromarray(np.zeros((1, 4000, 3), np.uint8)).save(tmp_path / "row.png")
    assert (
        VideoSearch(folders["blip"]).rank(tmp_path / "row.png", ["a red circle"]).texts
    )  # squashed, as by the library
    from clipbert_mm.errors import BrokenMediaError

    # Their shorter side becomes 32 or 64 pixels, so at their size a longer row is what 1 x 4000 is to the published models.
    Image.fromarray(np.zeros((1, 40_000, 3), np.uint8)).save(tmp_path / "row.png")
    for family in ("clip", "vilt"):
        with pytest.raises((BrokenMediaError, CheckpointError), match=r"row\.png"):
            VideoSearch(folders[family]).rank(tmp_path / "row.png", ["a red circle"])
