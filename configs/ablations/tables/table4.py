# Table 4 of the paper: sparse random and dense uniform sampling, tested with N_test = 16.
#   python tools/analysis_tools/ablation.py table4 --gpus-per-run 8
_base_ = "./_msrvtt.py"
title = "Table 4: sparse random and dense uniform sampling"
rows = {
    "dense-uniform-n16": dict(label={"sampling": "dense uniform", "N_train": 16}, paper="table4_dense-uniform-n16"),
    "sparse-random-n1": dict(label={"sampling": "sparse random", "N_train": 1}, paper="table4_sparse-random-n1"),
    "sparse-random-n2": dict(label={"sampling": "sparse random", "N_train": 2}, paper="table4_sparse-random-n2"),
    "sparse-random-n4": dict(label={"sampling": "sparse random", "N_train": 4}, paper="table4_sparse-random-n4"),
}
conclusions = [
    dict(
        number="iv",
        statement="Sparse random sampling of 4 clips is more effective than 16 dense uniform ones, in retrieval",
        task="retrieval",
        metric="t2v/R@5",  # R@1 differs by 0.2 in the paper
        better=["sparse-random-n4", "dense-uniform-n16"],
        margin=1.0,
    ),
    dict(
        number="iv",
        statement="Sparse random sampling of 4 clips is more effective than 16 dense uniform ones, in QA",
        task="qa",
        metric="accuracy",
        better=["sparse-random-n4", "dense-uniform-n16"],
        margin=0.3,
    ),
]
