"""The command, as a shell has it."""

import csv
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch


@pytest.fixture
def run(run_command: Callable[..., tuple]) -> Callable[..., tuple]:
    """Run the command in an empty folder."""
    return run_command


def test_index_search_rank_info(run: Callable, checkpoint: Path, own_world: Path, break_file: Callable, tmp_path: Path):
    videos = own_world / "videos"
    code, out, err = run("index", videos, "--model", checkpoint, "--workers", 1)
    assert (code, out) == (0, "15 added, 0 changed, 0 unchanged, 0 removed, 0 unreadable\n"), err
    code, out, _ = run("search", "a red circle", "--topk", 2, "--explain", "why.png")
    assert code == 0
    assert len(out.splitlines()) == 3
    assert (tmp_path / "why.png").is_file()
    code, out, _ = run("search", "a red circle", "--json")
    hits = json.loads(out)["hits"]
    assert len(hits) == 5
    code, out, _ = run("rank", hits[0]["path"], "a red circle", "a blue square", "--json")
    assert {ranked["text"] for ranked in json.loads(out)["texts"]} == {"a red circle", "a blue square"}
    broken = break_file(videos / "test_00000.mp4", "empty")
    code, out, _ = run("index", videos, "--workers", 1, "--json")
    assert code == 3
    assert json.loads(out)["unreadable"] == {broken: "the file is empty (0 bytes)"}
    code, out, _ = run("index", "--remove", videos / "test_00001.mp4")
    assert (code, out) == (0, "removed 1\n")
    code, out, _ = run("info", "--json")
    assert len(json.loads(out)["videos"]) == 13
    code, out, _ = run("info", "--model", checkpoint)
    assert "task: retrieval" in out


def test_the_ledger_of_unreadable_files_and_compaction(
    run: Callable, checkpoint: Path, own_world: Path, break_file: Callable, tmp_path: Path
):
    videos = own_world / "videos"
    assert run("index", "--compact")[0] == 1, "there is no index"
    broken = break_file(videos / "test_00000.mp4", "empty")
    assert run("index", videos, "--model", checkpoint, "--workers", 1)[0] == 3
    assert run("info", "--unreadable")[1] == f"{broken}\tthe file is empty (0 bytes)\n"
    assert json.loads(run("info", "--unreadable", "--json")[1]) == {broken: "the file is empty (0 bytes)"}
    lost = tmp_path / "clipbert_index" / "tokens" / f"{'ab' * 16}.safetensors"
    lost.write_bytes(b"of a killed indexing")
    assert run("index", "--compact") == (0, "", "")
    assert not lost.exists()
    assert len(json.loads(run("info", "--json")[1])["videos"]) == 14


def test_without_a_terminal_the_progress_is_lines(
    run: Callable, checkpoint: Path, world: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("clipbert_mm.apis.index_run.LOG_SECONDS", 0.0)
    code, _, err = run("index", world / "videos", "--model", checkpoint, "--workers", 1)
    lines = [line for line in err.splitlines() if "indexing: " in line]
    assert (code, len(lines)) == (0, 15)
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d [\d:]{8} indexing: 15 of 15 videos, 0 unreadable, \S+ videos/s, 0:00 h left", lines[-1]
    )


def test_a_launcher_that_started_nothing_is_named(run: Callable, checkpoint: Path, world: Path):
    code, _, err = run("index", world / "videos", "--model", checkpoint, "--launcher", "pytorch")
    assert (code, "is for processes started by torchrun" in err) == (1, True)


def test_a_work_folder_stands_for_its_selected_checkpoint(run: Callable, checkpoint: Path, world: Path, tmp_path: Path):
    video = world / "videos" / "test_00000.mp4"
    (checkpoint.parent / "finished").unlink()
    code, _, err = run("index", video, "--model", checkpoint.parent, "--workers", 1)
    assert (code, "no checkpoint that validation selected. Name the file" in err) == (1, True)
    selected = checkpoint.rename(checkpoint.with_name("best_t2v_R@1_epoch_1.pth"))
    assert run("index", video, "--model", checkpoint.parent, "--workers", 1)[0] == 0
    assert json.loads(run("info", "--json")[1])["source"] == str(selected)
    assert "task: retrieval" in run("info", "--model", checkpoint.parent)[1]
    assert run("search", "a red circle")[0] == 0


def test_what_is_printed_is_whole_however_long_it_is(run: Callable, checkpoint: Path, world: Path, tmp_path: Path):
    folder = tmp_path / ("deep " * 40)
    folder.mkdir()
    for i in range(4):
        (folder / f"{i}.mp4").symlink_to(world / "videos" / f"test_0000{i}.mp4")
    assert run("index", folder, "--model", checkpoint, "--workers", 1)[0] == 0
    for arguments in (("search", "a red circle"), ("info",)):
        assert all(f"{folder}/{i}.mp4" in run(*arguments)[1] for i in range(4))


def test_errors(run: Callable, checkpoint: Path, tmp_path: Path):
    code, out, err = run("search", "a red circle")
    assert (code, out) == (1, "")
    assert err.startswith(
        "error: There is no index clipbert_index, which would name the model. Index videos first: clipbert index FOLDER "
        "--model CHECKPOINT."
    )
    code, _, err = run("index", tmp_path)
    assert (code, err.partition(". ")[2]) == (1, "Give the model: --model CHECKPOINT.\n")
    assert run("index", tmp_path / "gone", "--model", checkpoint)[0] == 1
    code, _, err = run("search", "a red circle", "--model", tmp_path / "no.pth")
    assert code == 1
    assert "no.pth" in err
    assert run("search")[0] == 2
    assert run("juggle")[0] == 2


def test_a_page_without_gradio_is_answered_with_what_to_install(run: Callable, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    code, _, err = run("serve")
    assert code == 1
    assert (
        err.strip() == "error: The page needs Gradio, and gradio is not installed. Run pip install 'clipbert_mm[page]'."
    )


def test_rank_takes_another_model_than_the_index_has(run: Callable, checkpoint: Path, world: Path, tmp_path: Path):
    video = world / "videos" / "test_00000.mp4"
    content = torch.load(checkpoint, weights_only=False)
    content["state_dict"]["head.classifier.2.bias"] += torch.tensor([0.0, 1.0])
    torch.save(content, tmp_path / "other.pth")
    texts = ("a red circle", "a blue square")
    assert run("index", video, "--model", checkpoint, "--workers", 1)[0] == 0
    first, other = (
        json.loads(run("rank", video, *texts, "--json", *model)[1])["texts"] for model in ((), ("--model", "other.pth"))
    )
    by_text = {each["text"]: each["score"] for each in first}
    for each in other:  # one more in the log-odds, as the bias says
        assert each["score"] == pytest.approx(by_text[each["text"]] + 1, abs=1e-4)
    code, _, err = run("search", texts[0], "--model", "other.pth")
    assert (code, "was made by" in err) == (1, True)


def test_an_index_of_before_is_the_default_and_its_option_works(
    run: Callable, checkpoint: Path, world: Path, tmp_path: Path
):
    video = world / "videos" / "test_00000.mp4"
    code, _, err = run("index", video, "--model", checkpoint, "--gallery", "clipbert_gallery", "--workers", 1)
    assert code == 0
    assert err.count("warning: --gallery is deprecated and will go with the next release. Use --index.\n") == 1
    assert json.loads(run("info", "--json")[1])["index"] == "clipbert_gallery"
    code, out, err = run("search", "a red circle", "--json")
    assert (code, [hit["path"] for hit in json.loads(out)["hits"]]) == (0, [str(video)])
    assert "warning" not in err
    (tmp_path / "clipbert_gallery").rename(tmp_path / "clipbert_index")
    assert json.loads(run("info", "--json")[1])["index"] == "clipbert_index"


def test_many_texts_conditions_and_formats(run: Callable, checkpoint: Path, world: Path, tmp_path: Path):
    videos = sorted((world / "videos").glob("test_*.mp4"))
    assert run("index", *videos, "--model", checkpoint, "--workers", 1)[0] == 0
    (tmp_path / "texts.txt").write_text("\ufeffa red circle\n\n  a blue square \n", encoding="utf-8")
    code, out, _ = run("search", "--queries", "texts.txt", "--json", "--topk", 2)
    results = [json.loads(line) for line in out.splitlines()]
    assert (code, [each["text"] for each in results]) == (0, ["a red circle", "a blue square"])
    assert results[0] == json.loads(run("search", "a red circle", "--json", "--topk", 2)[1])
    code, out, _ = run("search", "--queries", "texts.txt", "--csv", "--topk", 2)
    rows = list(csv.DictReader(io.StringIO(out)))
    expected = [(each["text"], hit["path"]) for each in results for hit in each["hits"]]
    assert [(row["query"], row["path"]) for row in rows] == expected
    assert float(rows[0]["score"]) == results[0]["hits"][0]["score"]
    assert float(rows[0]["start"]) == results[0]["hits"][0]["moment"]["start"]
    assert out.splitlines()[0] == "query,rank,path,score,probability,start,end,stage"
    assert run("search", "--queries", "texts.txt")[1].count(" in 7 videos") == 2
    paths = [str(path) for path in videos]
    for conditions, count in (
        (("--in", paths[0], "--in", paths[3]), 2),
        (("--in", videos[0].parent), 7),
        (("--in", tmp_path), 0),
        (("--min-seconds", "0.5", "--max-seconds", 1000), 7),
        (("--min-seconds", "1000"), 0),
        (("--written-after", "2001-01-01"), 7),
        (("--written-before", "2001-01-01T12:30"), 0),
    ):
        code, out, _ = run("search", "a red circle", "--json", *conditions)
        assert (code, json.loads(out)["searched"]) == (0, count)


def test_what_cannot_be_searched_for(run: Callable, tmp_path: Path):
    (tmp_path / "none.txt").write_text("\n \n")
    (tmp_path / "latin.txt").write_bytes("käse".encode("latin-1"))
    for arguments, message in (
        (("--queries", "none.txt"), "--queries none.txt has no text. Write one text a line."),
        (("--queries", "latin.txt"), "--queries latin.txt: expected text in UTF-8, one a line"),
        (("--queries", "gone.txt"), "Cannot read --queries gone.txt: No such file or directory."),
        (("a", "--json", "--csv"), "Give --json or --csv, not both."),
        (("--queries", "none.txt", "--explain", "a.png"), "--explain goes with one text"),
    ):
        code, _, err = run("search", *arguments)
        assert code == 1
        assert err.startswith(f"error: {message}")
    for arguments, message in (
        (("a", "--queries", "none.txt"), "not allowed with argument"),
        (("a", "--min-seconds", "nan"), "expected a number of seconds, 0 or more, got 'nan'"),
        (("a", "--written-after", "yesterday"), "expected a date such as 2026-03-01"),
    ):
        code, _, err = run("search", *arguments)
        assert code == 2
        assert message in err


def test_help_is_quick():
    """It must not wait for the libraries that a search needs."""
    code = (
        "import sys\nfrom clipbert_mm.__main__ import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "slow = {'matplotlib', 'clipbert_mm.engine', 'clipbert_mm.models'} & set(sys.modules)\n"
        "assert not slow, slow"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "index" in done.stdout
