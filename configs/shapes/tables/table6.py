# Twin of Table 6: end-to-end training. F_v is backbone, projection and fusion; F_l are the word embeddings.
#   python tools/analysis_tools/ablation.py table6 --on shapes
_base_ = "./_twins.py"
title = "Table 6 on Shapes: end-to-end training"
rows = {
    "frozen-frozen": dict(
        label={"F_v": "frozen", "F_l": "frozen"},
        paper="table6_frozen-frozen",
        overrides={"model.frozen": ["visual_encoder", "text_encoder"]},
    ),
    "frozen-trained": dict(
        label={"F_v": "frozen", "F_l": "trained"},
        paper="table6_frozen-trained",
        overrides={"model.frozen": ["visual_encoder"]},
    ),
    "trained-trained": dict(label={"F_v": "trained", "F_l": "trained"}, paper="table6_trained-trained"),
}
reference = "trained-trained"
conclusions = [
    dict(
        number="vi",
        statement="End-to-end training is better than a frozen visual encoder",
        task="retrieval",
        metric="accuracy",
        better=["trained-trained", "frozen-trained"],
        margin=2.0,
    ),
    dict(
        number="vi",
        statement="End-to-end training is better than frozen encoders",
        task="retrieval",
        metric="accuracy",
        better=["trained-trained", "frozen-frozen"],
        margin=2.0,
    ),
]
