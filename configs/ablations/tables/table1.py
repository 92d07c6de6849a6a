# Table 1 of the paper: input image size L. The paper's numbers stand in the first lines of the rows' configs.
#   python tools/analysis_tools/ablation.py table1 --gpus-per-run 8
_base_ = "./_msrvtt.py"
title = "Table 1: input image size L"
rows = {f"l{size}": dict(label={"L": size}, paper=f"table1_l{size}") for size in (224, 448, 768, 1000)}
reference = "l448"
conclusions = [
    dict(
        number="i",
        statement="A larger input size improves retrieval (224 to 448)",
        task="retrieval",
        metric="t2v/R@1",
        better=["l448", "l224"],
        margin=1.0,
    ),
    dict(
        number="i",
        statement="The gain diminishes above 448: 448 is not worse than 1000",
        task="retrieval",
        metric="t2v/R@1",
        no_worse=["l448", "l1000"],
        margin=2.0,
    ),
]
