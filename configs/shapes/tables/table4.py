# Twin of Table 4: sparse random and dense uniform sampling, tested with N_test = 8; 8 clips stand for the paper's 16.
#   python tools/analysis_tools/ablation.py table4 --on shapes
_base_ = "./_twins.py"
title = "Table 4 on Shapes: sparse random and dense uniform sampling"
dense = {"test_dataloader.dataset.pipeline.1.num_clips": 8, "test_dataloader.dataset.pipeline.1.mode": "uniform"}
rows = {
    "dense-uniform-n8": dict(
        label={"sampling": "dense uniform", "N_train": 8},
        paper="table4_dense-uniform-n16",
        overrides={
            "train_dataloader.dataset.pipeline.1.num_clips": 8,
            "train_dataloader.dataset.pipeline.1.mode": "uniform",
        },
        test=dense,
    )
} | {
    f"sparse-random-n{number}": dict(
        label={"sampling": "sparse random", "N_train": number},
        paper=f"table4_sparse-random-n{number}",
        overrides={"train_dataloader.dataset.pipeline.1.num_clips": number},
        test=dense,
    )
    for number in (1, 2, 4)
}
conclusions = [
    dict(
        number="iv",
        statement="Sparse random sampling of 4 clips is more effective than 8 dense uniform ones, in retrieval",
        task="retrieval",
        metric="accuracy",
        better=["sparse-random-n4", "dense-uniform-n8"],
        margin=1.0,
    ),
    dict(
        number="iv",
        statement="Sparse random sampling of 4 clips is more effective than 8 dense uniform ones, in QA",
        task="qa",
        metric="accuracy",
        better=["sparse-random-n4", "dense-uniform-n8"],
        margin=1.0,
    ),
]
