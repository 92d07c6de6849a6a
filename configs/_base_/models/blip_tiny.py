# A BLIP-like model of 1.5 million parameters for frames of 64 x 64 pixels: a vision transformer on patches of 16 x 16 pixels,
# a text encoder that reads its tokens by cross-attention, and vectors of both. Same parts as the public checkpoints.
vocab_size = 200
model = dict(
    type="ClipBert",
    data_preprocessor=dict(
        type="VideoTextPreprocessor",
        mean=[122.7709383, 116.7460125, 104.09373615],
        std=[68.5005327, 66.6321579, 70.32316305],
        vocab_size=vocab_size,
    ),
    backbone=dict(
        type="BlipVision",
        image_size=64,
        patch_size=16,
        hidden_size=128,
        num_layers=3,
        num_heads=4,
        intermediate_size=512,
        initializer_range=0.04,
    ),
    temporal_fusion=dict(type="ConcatFusion"),
    encoder=dict(
        type="CrossEncoder",
        vocab_size=vocab_size,
        hidden_size=128,
        num_layers=3,
        num_heads=4,
        intermediate_size=512,
        max_text_length=64,
        visual_size=128,
        frame_tokens=17,
        vector_size=64,
        joint_token=199,
        initializer_range=0.08,
    ),
    hard_negatives=dict(type="HardNegatives"),
    aggregator=dict(type="LogSumExpAggregator"),
)
