# BLIP (Li et al., ICML 2022) in the size of Salesforce/blip-itm-base-coco: a ViT-B/16 for 384 x 384 pixels, a BERT-base with
# cross-attention, and vectors of 256 numbers. A leaf says how the clips of a video become one.
blip = "{{$CLIPBERT_BLIP:Salesforce/blip-itm-base-coco}}"
vocab_size = 30524
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
        image_size=384,
        patch_size=16,
        hidden_size=768,
        num_layers=12,
        num_heads=12,
        intermediate_size=3072,
    ),
    temporal_fusion=dict(type="ConcatFusion"),
    encoder=dict(
        type="CrossEncoder",
        vocab_size=vocab_size,
        hidden_size=768,
        num_layers=12,
        num_heads=12,
        intermediate_size=3072,
        max_text_length=512,
        visual_size=768,
        frame_tokens=577,
        vector_size=256,
        joint_token=30523,
    ),
    head=dict(type="SimilarityMatchingHead", in_channels=768),
    aggregator=dict(type="LogSumExpAggregator"),
)
# What follows the frames in a leaf's pipelines, as the model's own files have it; its texts have at most 35 tokens.
resize_and_text = [
    dict(type="ResizeTo", size=[384, 384], interpolation="bicubic"),
    dict(type="Tokenize", tokenizer=blip, max_length=35),
    dict(type="PackInputs"),
]
