# Pre-training of the paper's recipe (Section 3, "Weight Initialization and Pre-training") on the Shapes world: masked language
# modelling and image-text matching on single frames. It starts, as the paper's does, from a backbone that names objects; train
# resnet_tiny_1xb32-5e_shapes-objects.py first.
#   python tools/train.py configs/shapes/clipbert_tiny_1xb32-4e_shapes-pretrain.py
_base_ = [
    "../_base_/models/clipbert_tiny.py",
    "../_base_/datasets/image_text.py",
    "../_base_/datasets/image_text_val.py",
    "../_base_/schedules/adamw_linear.py",
    "../_base_/default_runtime.py",
]
data_root = "{{$SHAPES_ROOT:data/shapes}}"
tokenizer = f"{data_root}/tokenizer"
captions = [f"{data_root}/pretrain.jsonl", f"{data_root}/train.jsonl"]
load_from = "work_dirs/resnet_tiny_1xb32-5e_shapes-objects/epoch_5.pth"

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

train_cfg = dict(max_epochs=4)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
auto_scale_lr = dict(enable=False, base_batch_size=32)
default_hooks = dict(checkpoint=dict(interval=2))
