# A model of 1.2 million parameters for frames of 64 x 64 pixels, which learns the Shapes world from scratch in minutes on two
# CPU cores. Same parts as the paper's; add a head per task.
vocab_size = 200
model = dict(
    type="ClipBert",
    data_preprocessor=dict(
        type="VideoTextPreprocessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        vocab_size=vocab_size,
    ),
    backbone=dict(
        type="mmpretrain.ResNet",
        depth=18,
        stem_channels=16,
        base_channels=16,
        strides=(1, 2, 2, 1),
    ),
    projection=dict(type="GridProjection", in_channels=128, out_channels=128),
    temporal_fusion=dict(type="MeanFusion"),
    encoder=dict(
        type="JointEncoder",
        vocab_size=vocab_size,
        hidden_size=128,
        num_layers=3,
        num_heads=4,
        intermediate_size=512,
        max_text_length=64,
        dropout=0.0,
        grid_size=8,
        initializer_range=0.08,
    ),
    aggregator=dict(type="LogSumExpAggregator"),
)
