# Pre-training of a BLIP-like model on the Shapes world, from random weights: single frames with their captions, a contrastive
# loss of the vectors, and image-text matching with hard negatives that these choose in the batch (Li et al., ICML 2022,
# Section 3.2).
#   python tools/train.py configs/public/blip_tiny_1xb32-1e_shapes-pretrain.py
_base_ = [
    "../_base_/models/blip_tiny.py",
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
        type="SimilarityMatchingHead",
        in_channels=128,
        init_cfg=dict(type="Normal", layer="Linear", std=0.08),  # with the usual 0.02 matching is learnt far later
    )
)

pipeline = [
    dict(type="LoadImage"),
    dict(type="ResizeTo", size=[64, 64], interpolation="bicubic"),
    dict(type="Tokenize", tokenizer=tokenizer, max_length=64, train_on=captions, vocab_size=200),
    dict(type="PackInputs"),
]
train_dataloader = dict(
    batch_size=32,
    num_workers=0,
    drop_last=True,
    dataset=dict(data_root=data_root, captions_per_item=2, negative_probability=0.0, pipeline=pipeline),
)
val_dataloader = dict(
    batch_size=32,
    num_workers=0,
    dataset=dict(data_root=data_root, ann_file="pretrain_test.jsonl", indices=100, pipeline=pipeline),
)
test_dataloader = dict(batch_size=32, num_workers=1, dataset=dict(data_root=data_root, pipeline=pipeline))

train_cfg = dict(max_epochs=1)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
auto_scale_lr = dict(enable=False, base_batch_size=32)
default_hooks = dict(checkpoint=dict(interval=1))
