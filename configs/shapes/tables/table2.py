# Twin of Table 2: frames T of a clip of one second and temporal fusion M. One frame does not tell how a shape moves.
#   python tools/analysis_tools/ablation.py table2 --on shapes
_base_ = "./_twins.py"
title = "Table 2 on Shapes: frames T and temporal fusion M"
fusions = {"mean": "MeanFusion", "conv3d": "Conv3DFusion", "conv2plus1d": "Conv2Plus1DFusion"}
named = {"mean": "mean pooling", "conv3d": "Conv3D", "conv2plus1d": "Conv(2+1)D"}
varied = [("mean", 2), ("mean", 4), ("mean", 8), ("mean", 16)]
varied += [(name, frames) for name in ("conv3d", "conv2plus1d") for frames in (2, 16)]
rows = {"t1": dict(label={"M": "-", "T": 1}, paper="table2_t1")} | {
    f"{name}-t{frames}": dict(
        label={"M": named[name], "T": frames},
        paper=f"table2_{name}-t{frames}",
        overrides={
            "train_dataloader.dataset.pipeline.1.num_frames": frames,
            "test_dataloader.dataset.pipeline.1.num_frames": frames,
            "model.temporal_fusion": dict(type=fusions[name]) | ({} if name == "mean" else dict(channels=128)),
        },
    )
    for name, frames in varied
}
conclusions = [
    dict(
        number="ii, control",  # not the paper's: whether the world tests (ii) at all
        statement="2 frames of a clip are better than 1 for questions, a third of which ask for motion",
        task="qa",
        metric="accuracy",
        better=["mean-t2", "t1"],
        margin=2.0,
    ),
    dict(
        number="ii",
        statement="2 frames of a clip are on par with 16, in retrieval",
        task="retrieval",
        metric="accuracy",
        no_worse=["mean-t2", "mean-t16"],
        margin=3.0,
    ),
    dict(
        number="ii",
        statement="2 frames of a clip are on par with 16, in QA",
        task="qa",
        metric="accuracy",
        no_worse=["mean-t2", "mean-t16"],
        margin=3.0,
    ),
    dict(
        number="ii",
        statement="Mean pooling is more effective than Conv3D (T = 2)",
        task="retrieval",
        metric="accuracy",
        better=["mean-t2", "conv3d-t2"],
        margin=2.0,
    ),
    dict(
        number="ii",
        statement="Mean pooling is more effective than Conv3D (T = 16)",
        task="retrieval",
        metric="accuracy",
        better=["mean-t16", "conv3d-t16"],
        margin=2.0,
    ),
]
