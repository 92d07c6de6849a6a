# Table 5 of the paper: weight initialization. CLIPBERT_RESNET must be unset, since each row has a ResNet-50 of its own.
#   python tools/analysis_tools/ablation.py table5 --gpus-per-run 8
_base_ = "./_msrvtt.py"
title = "Table 5: weight initialization"
rows = {
    "random-random": dict(label={"CNN": "random", "transformer": "random"}, paper="table5_random-random"),
    "random-bert": dict(label={"CNN": "random", "transformer": "BERT-base"}, paper="table5_random-bert"),
    "tsn-bert": dict(label={"CNN": "TSN, Kinetics-700", "transformer": "BERT-base"}, paper="table5_tsn-bert"),
    "imagenet-bert": dict(label={"CNN": "ImageNet", "transformer": "BERT-base"}, paper="table5_imagenet-bert"),
    "gridfeat-bert": dict(label={"CNN": "grid-feat", "transformer": "BERT-base"}, paper="table5_gridfeat-bert"),
    "image-text": dict(
        label={"CNN": "image-text pre-training", "transformer": "image-text pre-training"},
        paper="table5_image-text-pretraining",
    ),
}
reference = "image-text"
conclusions = [
    dict(
        number="v",
        statement="Image-text pre-training is better than ImageNet and BERT-base",
        task="retrieval",
        metric="t2v/R@1",
        better=["image-text", "imagenet-bert"],
        margin=1.0,
    ),
    dict(
        number="v",
        statement="Image-text pre-training is better than grid-feat and BERT-base",
        task="retrieval",
        metric="t2v/R@1",
        better=["image-text", "gridfeat-bert"],
        margin=1.0,
    ),
]
