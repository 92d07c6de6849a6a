# ViLT (Kim et al., ICML 2021) in the size of dandelin/vilt-b32-finetuned-coco: patches of 32 x 32 pixels, read with the text
# by one pre-norm transformer in the size of BERT-base. Add a head per task.
vilt = "{{$CLIPBERT_VILT:dandelin/vilt-b32-finetuned-coco}}"
vocab_size = 30522
model = dict(
    type="ClipBert",
    data_preprocessor=dict(
        type="VideoTextPreprocessor",
        mean=[127.5, 127.5, 127.5],
        std=[127.5, 127.5, 127.5],
        vocab_size=vocab_size,
        mask_padding=True,
    ),
    backbone=dict(type="ViltPatches", patch_size=32, hidden_size=768),
    temporal_fusion=dict(type="MeanFusion"),
    encoder=dict(
        type="ViltEncoder",
        vocab_size=vocab_size,
        hidden_size=768,
        num_layers=12,
        num_heads=12,
        intermediate_size=3072,
        max_text_length=40,
        grid_size=12,
        text_types=2,
        modality_types=2,
    ),
    aggregator=dict(type="LogSumExpAggregator"),
)
# What follows the frames in a leaf's pipelines, as the model's own files have it. All frames are padded to one shape, and the
# model leaves the padding out.
resize_and_text = [
    dict(type="ResizeTo", shorter=384, longest=639, multiple=32, interpolation="bicubic"),
    dict(type="Tokenize", tokenizer=vilt, max_length=40),
    dict(type="PackInputs"),
]
