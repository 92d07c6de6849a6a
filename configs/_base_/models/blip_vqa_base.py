# BLIP for questions (Li et al., ICML 2022) in the size of Salesforce/blip-vqa-base: a ViT-B/16 for 384 x 384 pixels, a
# BERT-base with cross-attention that reads the question, and one that rates the answers of the dataset as candidates.
blip = "{{$CLIPBERT_BLIP_VQA:Salesforce/blip-vqa-base}}"
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
    clip_fusion=dict(type="ConcatClips"),
    encoder=dict(
        type="AnswerEncoder",
        start_token=30522,
        questions=dict(
            type="CrossEncoder",
            vocab_size=vocab_size,
            hidden_size=768,
            num_layers=12,
            num_heads=12,
            intermediate_size=3072,
            max_text_length=512,
            visual_size=768,
            frame_tokens=577,
            vector_size=None,
            joint_token=30523,
        ),
    ),
    head=dict(type="LikelihoodHead"),
    aggregator=dict(type="LogSumExpAggregator"),
)
custom_hooks = [dict(type="CandidateAnswersHook")]
# What follows the frames in a leaf's pipelines, as the model's own files have it; its texts have at most 35 tokens.
resize_and_text = [
    dict(type="ResizeTo", size=[384, 384], interpolation="bicubic"),
    dict(type="Tokenize", tokenizer=blip, max_length=35),
    dict(type="PackInputs"),
]
