# Twin of Table 5: weight initialization. Objects stand for grid-feat, masked captions without pictures for BERT; ImageNet and
# TSN have no twin. A random CNN is trained with its batch norms, as in the paper.
#   python tools/analysis_tools/ablation.py table5 --on shapes
_base_ = "./_twins.py"
title = "Table 5 on Shapes: weight initialization"
random = {"model.backbone.norm_eval": False}
rows = {
    "random-random": dict(
        label={"CNN": "random", "transformer": "random"}, paper="table5_random-random", start=None, overrides=random
    ),
    "random-text": dict(
        label={"CNN": "random", "transformer": "text"}, paper="table5_random-bert", start="text", overrides=random
    ),
    "objects-random": dict(label={"CNN": "objects", "transformer": "random"}, start="objects"),
    "objects-text": dict(
        label={"CNN": "objects", "transformer": "text"}, paper="table5_gridfeat-bert", start="objects_text"
    ),
    "image-text": dict(
        label={"CNN": "image-text pre-training", "transformer": "image-text pre-training"},
        paper="table5_image-text-pretraining",
    ),
}
reference = "image-text"
conclusions = [
    dict(
        number="v",
        statement="Image-text pre-training is better than objects and text each on their own",
        task="retrieval",
        metric="accuracy",
        better=["image-text", "objects-text"],
        margin=2.0,
    ),
    dict(
        number="v",
        statement="Image-text pre-training is better than random weights",
        task="retrieval",
        metric="accuracy",
        better=["image-text", "random-random"],
        margin=2.0,
    ),
]
