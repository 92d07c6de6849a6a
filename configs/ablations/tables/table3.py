# Table 3 of the paper: training clips N_train and aggregation G, tested with N_test = 16.
#   python tools/analysis_tools/ablation.py table3 --gpus-per-run 8
_base_ = "./_msrvtt.py"
title = "Table 3: training clips N_train and aggregation G"
rows = {
    "n1": dict(label={"G": "-", "N_train": 1}, paper="table3_n1"),
    "mean-n2": dict(label={"G": "mean pooling", "N_train": 2}, paper="table3_mean-n2"),
    "mean-n4": dict(label={"G": "mean pooling", "N_train": 4}, paper="table3_mean-n4"),
    "mean-n8": dict(label={"G": "mean pooling", "N_train": 8}, paper="table3_mean-n8"),
    "mean-n16": dict(label={"G": "mean pooling", "N_train": 16}, paper="table3_mean-n16"),
    "max-n2": dict(label={"G": "max pooling", "N_train": 2}, paper="table3_max-n2"),
    "max-n16": dict(label={"G": "max pooling", "N_train": 16}, paper="table3_max-n16"),
    "lse-n2": dict(label={"G": "LogSumExp", "N_train": 2}, paper="table3_lse-n2"),
    "lse-n16": dict(label={"G": "LogSumExp", "N_train": 16}, paper="table3_lse-n16"),
}
conclusions = [
    dict(
        number="iii",
        statement="The aggregation affects retrieval: LogSumExp is better than max pooling (N_train = 2)",
        task="retrieval",
        metric="t2v/R@1",
        better=["lse-n2", "max-n2"],
        margin=1.0,
    ),
    dict(
        number="iii",
        statement="The aggregation affects retrieval: LogSumExp is better than mean pooling (N_train = 2)",
        task="retrieval",
        metric="t2v/R@1",
        better=["lse-n2", "mean-n2"],
        margin=1.0,
    ),
]
