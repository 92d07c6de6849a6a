# A model of 0.9 million parameters for frames of 64 x 64 pixels, which learns the Shapes world from nothing in minutes on two
# CPU cores. Same parts as the paper's; add a head per task. The three stages of its ResNet end in a map of 8 x 8 cells, which
# makes 4 x 4 visual tokens; kinds of shapes are far easier to learn with a stem of three 3x3 convolutions than with one of 7x7.
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
        deep_stem=True,
        stem_channels=16,
        base_channels=16,
        num_stages=3,
        strides=(1, 2, 1),
        dilations=(1, 1, 1),
        out_indices=(2,),
    ),
    projection=dict(type="GridProjection", in_channels=64, out_channels=128),
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
