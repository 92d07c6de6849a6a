# Twin of Figure 4: clips N_test in testing, of two trainings with one clip.
#   python tools/analysis_tools/ablation.py figure4 --on shapes
_base_ = "./_twins.py"
title = "Figure 4 on Shapes: test clips N_test"
clips, frames = (f"dataloader.dataset.pipeline.1.{name}" for name in ("num_clips", "num_frames"))
in_tables = {(1, 1): "table1_l448", (1, 16): "table3_n1", (2, 1): "table2_mean-t2"}
rows = {
    f"t{length}-n{number}": dict(
        label={"T": length, "N_test": number},
        paper=in_tables.get((length, number)),
        overrides={f"train_{frames}": length, f"test_{frames}": length},
        test={f"test_{clips}": number, "test_dataloader.dataset.pipeline.1.mode": "uniform"},
    )
    for length in (1, 2)
    for number in (1, 2, 4, 8, 16)
}
conclusions = [
    dict(
        number="iii",
        statement="More clips in testing improve retrieval (1 to 16)",
        task="retrieval",
        metric="accuracy",
        better=["t1-n16", "t1-n1"],
        margin=2.0,
    ),
    dict(
        number="iii",
        statement="More clips in testing improve QA (1 to 16)",
        task="qa",
        metric="accuracy",
        better=["t1-n16", "t1-n1"],
        margin=2.0,
    ),
]
figure = dict(x="N_test", lines="T")
