# Pre-training of a ViLT-like model on the Shapes world: masked words and image-text matching on single frames, from random
# weights, as ViLT's (Kim et al., ICML 2021, Section 3.2). It needs no backbone that knows objects.
#   python tools/train.py configs/public/vilt_tiny_1xb32-3e_shapes-pretrain.py
_base_ = [
    "../_base_/models/vilt_tiny.py",
    "../_base_/datasets/image_text.py",
    "../_base_/datasets/image_text_val.py",
    "../_base_/schedules/adamw_linear.py",
    "../_base_/default_runtime.py",
]
data_root = "{{$SHAPES_ROOT:data/shapes}}"
tokenizer = f"{data_root}/tokenizer"
captions = [f"{data_root}/pretrain.jsonl", f"{data_root}/train.jsonl"]

model = dict(
    head=dict(
        type="MatchingHead",
        in_channels=128,
        hidden_channels=256,
        dropout=0.0,
        init_cfg=dict(
            type="Normal", layer="Linear", std=0.08
        ),  # with the usual 0.02 matching begins to be learned far later
    ),
    mlm_head=dict(type="MaskedLanguageHead", in_channels=128, vocab_size=200),
    pack_pairs=True,
)

pipeline = [
    dict(type="LoadImage"),
    dict(type="ResizePad", size=64),
    dict(type="Tokenize", tokenizer=tokenizer, max_length=64, train_on=captions, vocab_size=200),
    dict(type="MaskTokens", tokenizer=tokenizer, probability=0.3, predict_unmatched=False),
    dict(type="PackInputs"),
]
train_dataloader = dict(
    batch_size=32,
    num_workers=0,
    drop_last=True,
    dataset=dict(data_root=data_root, captions_per_item=3, pipeline=pipeline),
)
val_dataloader = dict(
    batch_size=32,
    num_workers=0,
    dataset=dict(data_root=data_root, ann_file="pretrain_test.jsonl", indices=100, pipeline=pipeline),
)
test_dataloader = dict(batch_size=32, num_workers=1, dataset=dict(data_root=data_root, pipeline=pipeline))

train_cfg = dict(max_epochs=3)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
auto_scale_lr = dict(enable=False, base_batch_size=32)
default_hooks = dict(checkpoint=dict(interval=3))
