# Table 2 of the paper: frames T of a clip and temporal fusion M.
#   python tools/analysis_tools/ablation.py table2 --gpus-per-run 8
_base_ = "./_msrvtt.py"
title = "Table 2: frames T and temporal fusion M"
rows = {
    "t1": dict(label={"M": "-", "T": 1}, paper="table2_t1"),
    "mean-t2": dict(label={"M": "mean pooling", "T": 2}, paper="table2_mean-t2"),
    "mean-t4": dict(label={"M": "mean pooling", "T": 4}, paper="table2_mean-t4"),
    "mean-t8": dict(label={"M": "mean pooling", "T": 8}, paper="table2_mean-t8"),
    "mean-t16": dict(label={"M": "mean pooling", "T": 16}, paper="table2_mean-t16"),
    "conv3d-t2": dict(label={"M": "Conv3D", "T": 2}, paper="table2_conv3d-t2"),
    "conv3d-t16": dict(label={"M": "Conv3D", "T": 16}, paper="table2_conv3d-t16"),
    "conv2plus1d-t2": dict(label={"M": "Conv(2+1)D", "T": 2}, paper="table2_conv2plus1d-t2"),
    "conv2plus1d-t16": dict(label={"M": "Conv(2+1)D", "T": 16}, paper="table2_conv2plus1d-t16"),
}
conclusions = [
    dict(
        number="ii",
        statement="2 frames of a clip are on par with 16",
        task="retrieval",
        metric="t2v/R@1",
        no_worse=["mean-t2", "mean-t16"],
        margin=2.0,
    ),
    dict(
        number="ii",
        statement="Mean pooling is more effective than Conv3D (T = 2)",
        task="retrieval",
        metric="t2v/R@1",
        better=["mean-t2", "conv3d-t2"],
        margin=1.0,
    ),
    dict(
        number="ii",
        statement="Mean pooling is more effective than Conv3D (T = 16)",
        task="retrieval",
        metric="t2v/R@1",
        better=["mean-t16", "conv3d-t16"],
        margin=1.0,
    ),
]
