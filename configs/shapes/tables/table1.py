# Twin of Table 1: input image size L. Frames have 96 pixels, so that more than L = 96 shows nothing new.
#   python tools/analysis_tools/ablation.py table1 --on shapes
_base_ = "./_twins.py"
title = "Table 1 on Shapes: input image size L"
in_paper = {32: 224, 64: 448, 112: 768, 144: 1000}
rows = {
    f"l{size}": dict(
        label={"L": size},
        paper=f"table1_l{paper}",
        overrides={
            "train_dataloader.dataset.pipeline.3.size": size,
            "test_dataloader.dataset.pipeline.3.size": size,
        },
    )
    for size, paper in in_paper.items()
}
reference = "l64"
conclusions = [
    dict(
        number="i",
        statement="A larger input size improves retrieval (32 to 64)",
        task="retrieval",
        metric="accuracy",
        better=["l64", "l32"],
        margin=2.0,
    ),
    dict(
        number="i",
        statement="The gain diminishes: from 32 to 64 it is more than from 64 to 144",
        task="retrieval",
        metric="accuracy",
        contrast={"l64": 2, "l32": -1, "l144": -1},
        margin=2.0,
    ),
]
