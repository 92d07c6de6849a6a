# Figure 4 of the paper: clips N_test in testing, of two trainings with one clip. The paper shows curves; the numbers of some of
# its points stand in Tables 1 to 3.
#   python tools/analysis_tools/ablation.py figure4 --gpus-per-run 8
_base_ = "./_msrvtt.py"
title = "Figure 4: test clips N_test"
trained = {1: "table1_l448", 2: "table2_mean-t2"}
in_tables = {(1, 1): "table1_l448", (1, 16): "table3_n1", (2, 1): "table2_mean-t2"}
clips = "test_dataloader.dataset.pipeline.1"
rows = {
    f"t{frames}-n{number}": dict(
        label={"T": frames, "N_test": number},
        row=trained[frames],
        paper=in_tables.get((frames, number)),
        test={} if number == 1 else {f"{clips}.num_clips": number, f"{clips}.mode": "uniform"},
    )
    for frames in (1, 2)
    for number in (1, 2, 4, 8, 16)
}
conclusions = [
    dict(
        number="iii",
        statement="More clips in testing improve retrieval (1 to 16)",
        task="retrieval",
        metric="t2v/R@1",
        better=["t1-n16", "t1-n1"],
        margin=1.0,
    ),
    dict(
        number="iii",
        statement="More clips in testing improve QA (1 to 16)",
        task="qa",
        metric="accuracy",
        better=["t1-n16", "t1-n1"],
        margin=0.3,
    ),
]
figure = dict(x="N_test", lines="T")
