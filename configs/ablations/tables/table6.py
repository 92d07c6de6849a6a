# Table 6 of the paper: end-to-end training.
#   python tools/analysis_tools/ablation.py table6 --gpus-per-run 8
_base_ = "./_msrvtt.py"
title = "Table 6: end-to-end training"
rows = {
    "frozen-frozen": dict(label={"F_v": "frozen", "F_l": "frozen"}, paper="table6_frozen-frozen"),
    "frozen-trained": dict(label={"F_v": "frozen", "F_l": "trained"}, paper="table6_frozen-trained"),
    "trained-trained": dict(label={"F_v": "trained", "F_l": "trained"}, paper="table6_trained-trained"),
}
reference = "trained-trained"
conclusions = [
    dict(
        number="vi",
        statement="End-to-end training is better than a frozen visual encoder",
        task="retrieval",
        metric="t2v/R@1",
        better=["trained-trained", "frozen-trained"],
        margin=1.0,
    ),
    dict(
        number="vi",
        statement="End-to-end training is better than frozen encoders",
        task="retrieval",
        metric="t2v/R@1",
        better=["trained-trained", "frozen-frozen"],
        margin=1.0,
    ),
]
