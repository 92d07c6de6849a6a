# SigLIP 2 (Tschannen et al., 2025) in the size of google/siglip2-base-patch16-224: vectors of frames and of texts, of which
# the log-odds of a match can be computed. The vector of a video is the mean of its frames'.
siglip2 = "{{$CLIPBERT_SIGLIP2:google/siglip2-base-patch16-224}}"
vocab_size = 256000
model = dict(
    type="ClipBert",
    data_preprocessor=dict(
        type="VideoTextPreprocessor",
        mean=[127.5, 127.5, 127.5],
        std=[127.5, 127.5, 127.5],
        vocab_size=vocab_size,
    ),
    backbone=dict(
        type="SiglipVision",
        image_size=224,
        patch_size=16,
        hidden_size=768,
        num_layers=12,
        num_heads=12,
        intermediate_size=3072,
    ),
    temporal_fusion=dict(type="MeanFusion"),
    clip_fusion=dict(type="MeanClips"),
    encoder=dict(
        type="SiglipText",
        vocab_size=vocab_size,
        hidden_size=768,
        num_layers=12,
        num_heads=12,
        intermediate_size=3072,
        max_text_length=64,
        vector_size=768,
        padding_token=0,
    ),
    head=dict(type="SigmoidSimilarityHead"),
    aggregator=dict(type="MeanAggregator"),
)
# What follows the frames in a leaf's pipelines, as the model's own files have it; texts of its training were in lower case.
resize_and_text = [
    dict(type="ResizeTo", size=[224, 224], interpolation="bilinear"),
    dict(type="Tokenize", tokenizer=siglip2, max_length=64, read_token="last", lowercase=True),
    dict(type="PackInputs"),
]
