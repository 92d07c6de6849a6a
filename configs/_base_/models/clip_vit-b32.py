# CLIP (Radford et al., ICML 2021) in the size of openai/clip-vit-base-patch32: vectors of frames and of texts. The vector of
# a video is the mean of its frames', as in Luo et al., 2021 (CLIP4Clip).
clip = "{{$CLIPBERT_CLIP:openai/clip-vit-base-patch32}}"
vocab_size = 49408
model = dict(
    type="ClipBert",
    data_preprocessor=dict(
        type="VideoTextPreprocessor",
        mean=[122.7709383, 116.7460125, 104.09373615],
        std=[68.5005327, 66.6321579, 70.32316305],
        vocab_size=vocab_size,
    ),
    backbone=dict(
        type="CLIPVision",
        image_size=224,
        patch_size=32,
        hidden_size=768,
        num_layers=12,
        num_heads=12,
        intermediate_size=3072,
        vector_size=512,
        hidden_act="quick_gelu",
    ),
    temporal_fusion=dict(type="MeanFusion"),
    clip_fusion=dict(type="MeanClips"),
    encoder=dict(
        type="CLIPText",
        vocab_size=vocab_size,
        hidden_size=512,
        num_layers=12,
        num_heads=8,
        intermediate_size=2048,
        max_text_length=77,
        vector_size=512,
        hidden_act="quick_gelu",
    ),
    head=dict(type="SimilarityHead"),
    aggregator=dict(type="MeanAggregator"),
)
# What follows the frames in a leaf's pipelines, as the model's own files have it.
resize_and_text = [
    dict(type="ResizeTo", shorter=224, crop=224, interpolation="bicubic"),
    dict(type="Tokenize", tokenizer=clip, max_length=77, read_token="last"),
    dict(type="PackInputs"),
]
