# A ViLT-like model of 0.9 million parameters for frames of 64 x 64 pixels: no convolutional backbone, one linear projection of
# patches of 16 x 16 pixels and one pre-norm transformer over text and patches. Same parts as the public checkpoints; add a head
# per task.
vocab_size = 200
model = dict(
    type="ClipBert",
    data_preprocessor=dict(
        type="VideoTextPreprocessor",
        mean=[127.5, 127.5, 127.5],
        std=[127.5, 127.5, 127.5],
        vocab_size=vocab_size,
    ),
    backbone=dict(type="ViltPatches", patch_size=16, hidden_size=128, initializer_range=0.04),
    temporal_fusion=dict(type="MeanFusion"),
    encoder=dict(
        type="ViltEncoder",
        vocab_size=vocab_size,
        hidden_size=128,
        num_layers=4,
        num_heads=4,
        intermediate_size=512,
        max_text_length=64,
        grid_size=4,
        initializer_range=0.08,
    ),
    aggregator=dict(type="LogSumExpAggregator"),
)
