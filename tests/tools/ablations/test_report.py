"""The report of outcomes that were written by hand."""

import math
from pathlib import Path

import numpy as np
import pytest
from ablation_reports import AS_CHOICE, TABLE, report
from ablations import drawing


@pytest.fixture
def reported(tmp_path: Path) -> tuple[dict, str, str]:
    return report(tmp_path)


def test_means_intervals_and_differences_by_hand(reported: tuple[dict, str, str]):
    report = reported[0]
    rows = {row["name"]: row["tasks"] for row in report["rows"]}
    one, two = (rows[name]["retrieval"] for name in ("n1", "n2"))
    assert [one["values"][seed]["t2v/MdR"] for seed in "012"] == [5, 5, 5]
    assert [two["values"][seed]["t2v/R@1"] for seed in "012"] == [50, 75, 50]
    assert two["estimates"]["t2v/R@1"]["mean"] == pytest.approx(175 / 3)
    half = 4.3027 * np.std([50, 75, 50], ddof=1) / math.sqrt(3)
    assert two["estimates"]["t2v/R@1"]["over_seeds"] == pytest.approx([175 / 3 - half, 175 / 3 + half])
    assert two["difference_to_reference"]["mean"] == pytest.approx(175 / 3)
    assert one["seconds"]["0"] == dict(training=50.0, test=10.0)
    asked = report["conclusions"][1]
    assert asked["difference"]["mean"] == pytest.approx(50 / 3)
    half = 4.3027 * np.std([25, 0, 25], ddof=1) / math.sqrt(3)
    assert asked["difference"]["over_seeds"] == pytest.approx([50 / 3 - half, 50 / 3 + half])


def test_verdicts_of_ranks_of_small_differences_and_of_rows_that_are_missing(reported: tuple[dict, str, str]):
    verdicts = [(claim["verdict"], claim["difference"] is None) for claim in reported[0]["conclusions"]]
    assert verdicts == [("seen", False), ("undecided", False), ("undecided", True)]
    assert reported[0]["conclusions"][0]["difference"]["mean"] == pytest.approx(3.5 + 1 / 6)  # 5 - (1.5 + 1 + 1.5) / 3


def test_the_papers_numbers_stand_beside_ours_and_what_is_missing_is_no_zero(reported: tuple[dict, str, str]):
    text = reported[1]
    assert (
        "| N | paper R@1 | R@1 | paper R@5 | R@5 | paper R@10 | R@10 | paper MdR | MdR | Δ R@1 to n1 | seeds | time |"
        in text
    )
    assert (
        "Seeds 0, 1, 2; runs of 2026-01-01 to 2026-01-03 by clipbert_mm 0.1.0; CPU, small, 2 cores; torch 2.1" in text
    )
    assert "Rows of different seeds" not in text
    assert "| 1 | 12.7 | 0.0 [0.0, 0.0] | 34.5 | " in text
    assert "| 2 | 15.5 | 58.3 [" in text
    assert "| 4 |  | missing |  | missing |  | missing |  | missing | missing | 0 of 3 | missing |" in text
    assert "| reference | 3 of 3 | 60 s |" in text


def test_a_row_without_its_starting_weights_is_reported_as_missing(tmp_path: Path):
    found, text, _ = report(tmp_path, TABLE.replace('"n4": dict(', '"n4": dict(start="nowhere.pth", '))
    row = found["rows"][2]["tasks"]["retrieval"]
    assert (row["training"], row["values"], row["missing_seeds"]) == (None, {}, [0, 1, 2])
    assert "| missing | 0 of 3 | missing |" in text


def test_the_index_has_a_verdict_for_each_conclusion(reported: tuple[dict, str, str]):
    lines = [line for line in reported[2].splitlines() if line.startswith("| i")]
    assert [line.split(" | ")[:2] for line in lines] == [["| iii", "**undecided**"], ["| iv", "**undecided**"]]
    assert "2 clips rank better ([hand](hand.md)): seen; 2 clips answer better ([hand](hand.md)): undecided" in lines[0]


def test_of_a_measure_that_is_not_the_paper_s_the_paper_s_main_one_stands_beside(tmp_path: Path):
    report_dict, text, _ = report(tmp_path, AS_CHOICE, True)
    lines = text[text.index("## retrieval") : text.index("## qa")].splitlines()
    heads, *_, second, _ = (line.split(" | ") for line in lines if line.startswith("| "))
    assert heads[:4] == ["| N", "paper R@1", "accuracy", "Δ accuracy to n1"]
    assert [cell.partition(" [")[0] for cell in second[:4]] == ["| 2", "15.5", "66.7", "+16.7"]
    assert report_dict["metrics"] == {"retrieval": ["accuracy"], "qa": ["accuracy"]}


def test_a_figure_has_a_line_for_each_value_however_many_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    found = dict(mean=1.0, interval=[0.5, 2.0])
    rows = [
        dict(label={"N": str(n), "G": f"g{line}"}, tasks=dict(qa=dict(estimates=dict(accuracy=found), values={"0": 1})))
        for line in range(7)
        for n in (1, 2)
    ]
    figures = []
    monkeypatch.setattr(drawing, "save_figure", lambda figure, _: figures.append(figure))
    report_dict = dict(title="Many", metrics=dict(qa=["accuracy"]), rows=rows)
    assert drawing.draw_lines(report_dict, dict(x="N", lines="G"), tmp_path / "many.png")
    (legend,) = (axes.get_legend() for axes in figures[0].axes)
    assert [text.get_text() for text in legend.get_texts()] == [f"G = g{line}" for line in range(7)]
    looks = {(line[0].get_color(), line[0].get_linestyle()) for line in figures[0].axes[0].containers}
    assert len(looks) == 7
