"""The converter of image captions: tiny files in the publishers' formats, and files that are wrong."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clipbert_mm.errors import AnnotationError

Convert = Callable[..., None]


def read_lines(out: Path, name: str) -> list[dict[str, Any]]:
    """The records of a file that a converter wrote."""
    return [json.loads(line) for line in (out / "annotations" / name).read_text(encoding="utf-8").splitlines()]


def change(path: Path, edit: Callable[[Any], Any]) -> None:
    """Edit a JSON file; an edit that returns something replaces its content."""
    content = json.loads(path.read_text())
    path.write_text(json.dumps(edit(content) or content))


def set_in(*keys: str | int, to: Any) -> Callable[[Any], None]:
    """An edit that sets one value."""

    def edit(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = to

    return edit


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """COCO's captions of images 7 (train), 8 (train, held out), 9 (val, for training) and 10 (val, held out)."""
    folder = tmp_path / "coco"
    folder.mkdir()
    splits = {7: "train", 8: "test", 9: "restval", 10: "val"}
    for subset, ids in (("train2014", (7, 8)), ("val2014", (9, 10))):
        url = "http://farm9.staticflickr.com/8186/{}_4e62_z.jpg"
        images = [dict(id=i, file_name=f"COCO_{subset}_{i:012d}.jpg", flickr_url=url.format(90 + i)) for i in ids]
        captions = [dict(image_id=i, id=10 * i + j, caption=f" {i} is\n no {j}. ") for i in ids for j in range(2)]
        path = folder / f"captions_{subset}.json"
        path.write_text(json.dumps(dict(info={}, images=images, annotations=captions, licenses=[])))
    images = [dict(cocoid=i, split=split, filename=f"{i}.jpg") for i, split in splits.items()]
    (folder / "dataset_coco.json").write_text(json.dumps(dict(images=images, dataset="coco")))
    return folder


@pytest.fixture
def genome(tmp_path: Path) -> Path:
    """Visual Genome: images outside COCO, in COCO's images 7 and 9, and in its test image 11."""
    folder = tmp_path / "vg"
    folder.mkdir()
    coco = {1: None, 2: 7, 3: 9, 4: 11}
    url = "https://cs.stanford.edu/people/rak248/VG_100K{}/{}.jpg"
    images = [
        dict(
            image_id=i, url=url.format("_2" if i == 2 else "", i), coco_id=coco_id, flickr_id=400 + i, width=8, height=6
        )
        for i, coco_id in coco.items()
    ]
    (folder / "image_data.json").write_text(json.dumps(images))
    regions = [
        dict(
            id=i,
            regions=[dict(region_id=10 * i + j, phrase=text, x=0, y=0) for j, text in enumerate(("a  cat\n", " "))],
        )
        for i in coco
    ]
    (folder / "region_descriptions.json").write_text(json.dumps(regions))
    return folder


@pytest.fixture
def convert_captions(tool: Callable, coco: Path, genome: Path, tmp_path: Path) -> Convert:
    """Convert with both publishers' folders; options come after."""
    main = tool("dataset_converters/image_captions.py").main
    return lambda *options: main([str(tmp_path / "out"), "--coco", str(coco), "--genome", str(genome), *options])


def named_images(out: Path) -> dict[str, list[str]]:
    """The images of both files."""
    return {
        name: sorted({record["image"] for record in read_lines(out, f"pretrain_{name}.jsonl")})
        for name in ("coco", "vg")
    }


def test_captions_are_converted_without_what_later_tasks_test_on(
    convert_captions: Convert, coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    convert_captions("--karpathy", str(coco / "dataset_coco.json"))
    out = tmp_path / "out"
    train, val = "train2014/COCO_train2014_000000000007.jpg", "val2014/COCO_val2014_000000000009.jpg"
    assert read_lines(out, "pretrain_coco.jsonl") == [
        dict(image=image, caption=f"{i} is no {j}.") for image, i in ((train, 7), (val, 9)) for j in range(2)
    ]
    assert read_lines(out, "pretrain_coco-val.jsonl") == [
        dict(image="val2014/COCO_val2014_000000000010.jpg", caption=f"10 is no {j}.") for j in range(2)
    ]
    # Image 4 of Visual Genome is COCO's 11, which is in none of the files: it is of COCO's test.
    assert read_lines(out, "pretrain_vg.jsonl") == [
        dict(image=f"VG_100K{name}.jpg", caption="a cat") for name in ("/1", "_2/2", "/3")
    ]
    said = capsys.readouterr().out
    assert "COCO images named for training: 2 (published: 113,287, so 113,285 are missing)" in said
    assert "pretrain_coco-val.jsonl: images: 1 (published: 5,000, so 4,999 are missing)" in said
    assert "pairs of both: 7 (published: 5.6M, so 100.0% missing)" in said
    assert "images of both: 3 (published: 151K, so 100.0% missing)" in said


def test_captions_by_lists_of_ids(convert_captions: Convert, tmp_path: Path):
    for name, text in (("ids", "a.jpg 7\n8\n\nb.jpg 10\n"), ("refcoco", "8\n"), ("flickr", "100\n401\n")):
        (tmp_path / name).write_text(text)
    options = ["--coco-ids", str(tmp_path / "ids"), "--leave-out", str(tmp_path / "refcoco")]
    convert_captions(*options)
    assert not (tmp_path / "out" / "annotations" / "pretrain_coco-val.jsonl").exists()
    train = ["train2014/COCO_train2014_000000000007.jpg"]
    val = ["val2014/COCO_val2014_000000000010.jpg"]
    assert named_images(tmp_path / "out") == {"coco": train + val, "vg": ["VG_100K/1.jpg", "VG_100K_2/2.jpg"]}
    convert_captions(*options, "--leave-out-flickr", str(tmp_path / "flickr"))
    assert named_images(tmp_path / "out") == {"coco": train, "vg": ["VG_100K_2/2.jpg"]}


def test_counts_within_a_percent_are_as_published(tool: Callable):
    say = tool("dataset_converters/image_captions.py").say_rounded
    assert (
        say("pairs", 5_645_000, (5_600_000, "5.6M")) == "pairs: 5,645,000 (published: 5.6M, so as published within 1 %)"
    )
    assert say("pairs", 5_768_000, (5_600_000, "5.6M")).endswith("5,768,000 (published: 5.6M, so 3.0% too many)")


TRAIN, REGIONS, KARPATHY = "captions_train2014.json", "region_descriptions.json", "dataset_coco.json"


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        (
            KARPATHY,
            set_in("dataset", to="flickr8k"),
            r'dataset_coco\.json: expected an object whose "dataset" is "coco"',
        ),
        (
            KARPATHY,
            set_in("images", 1, "split", to="dev"),
            r"images, entry 2: expected a split of train, restval, val, test",
        ),
        (KARPATHY, set_in("images", 1, "cocoid", to=7), r"images, entry 2: expected each cocoid once, got 7 again"),
        (
            KARPATHY,
            set_in("images", 0, "cocoid", to=99),
            r"captions of every image that is named, got '1 images without, first",
        ),
        (
            TRAIN,
            lambda content: {"annotations": []},
            r'train2014\.json: expected a JSON object with "images" and "annotations"',
        ),
        (TRAIN, set_in("images", 1, "id", to=7), r"images, entry 2: expected each id once, got 7 again"),
        (
            TRAIN,
            set_in("images", 1, "file_name", to="COCO_val2014_8.jpg"),
            r"a file_name that begins with COCO_train2014_, got",
        ),
        (TRAIN, set_in("annotations", 1, "id", to=70), r"annotations, entry 2: expected each id once, got 70 again"),
        (
            TRAIN,
            set_in("annotations", 1, "image_id", to=9),
            r'annotations, entry 2: expected the id of an image in "images"',
        ),
        (
            TRAIN,
            set_in("annotations", 1, "caption", to=None),
            r'entry 2: expected text under the key "caption", got None',
        ),
        (
            TRAIN,
            set_in("images", 0, "flickr_url", to=None),
            r"a flickr_url of every image, for --leave-out-flickr, got 'none of",
        ),
        (REGIONS, set_in(1, "id", to=5), r"entry 2: expected the id of an image in image_data\.json, got 5"),
        (REGIONS, set_in(1, "id", to=1), r"entry 2: expected each image once, got 1 again"),
        (REGIONS, set_in(1, "regions", to={}), r'entry 2: expected a list under the key "regions", got'),
        (
            REGIONS,
            set_in(1, "regions", 0, to={"region_id": 1}),
            r'entry 2, regions, entry 1: expected text under the key "phrase"',
        ),
    ],
)
def test_caption_files_that_are_wrong_are_named(
    convert_captions: Convert, coco: Path, genome: Path, tmp_path: Path, name: str, edit: Callable, message: str
):
    change((genome if name == REGIONS else coco) / name, edit)
    (tmp_path / "flickr").write_text("1\n")
    with pytest.raises(AnnotationError, match=message):
        convert_captions("--karpathy", str(coco / KARPATHY), "--leave-out-flickr", str(tmp_path / "flickr"))
    assert not (tmp_path / "out").exists()


def test_lists_of_ids_and_options_that_are_wrong_are_named(tool: Callable, convert_captions: Convert, tmp_path: Path):
    (tmp_path / "ids").write_text("7\nseven\n")
    with pytest.raises(AnnotationError, match=r"ids, line 2: expected a line with an id at its end, got 'seven'"):
        convert_captions("--coco-ids", str(tmp_path / "ids"))
    (tmp_path / "ids").write_text("\n")
    with pytest.raises(AnnotationError, match=r"ids: expected a line for each id, got 'none'"):
        convert_captions("--coco-ids", str(tmp_path / "ids"))
    with pytest.raises(SystemExit):
        tool("dataset_converters/image_captions.py").main([str(tmp_path / "out"), "--coco-ids", str(tmp_path / "ids")])
    assert not (tmp_path / "out").exists()
