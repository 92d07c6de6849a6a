# Image-text pre-training of the tables' twins, on images of the hard world at their own size, 96 pixels. It starts from the
# objects that resnet_tiny_1xb32-5e_shapes-objects.py has learned; the table files say which.
_base_ = [
    "../../_base_/models/clipbert_tiny.py",
    "../../_base_/datasets/image_text.py",
    "../../_base_/schedules/adamw_linear.py",
    "../../_base_/default_runtime.py",
]
data_root = "{{$SHAPES_ROOT:data/shapes_hard}}"
tokenizer = f"{data_root}/tokenizer"
texts = [f"{data_root}/{name}.jsonl" for name in ("pretrain", "train", "qa_train")]

# Four times the usual spread, so that a head of this width passes gradients on from the beginning.
init = dict(type="Normal", layer="Linear", std=0.08)
model = dict(
    encoder=dict(grid_size=9),
    head=dict(type="MatchingHead", in_channels=128, hidden_channels=256, dropout=0.0, init_cfg=init),
    mlm_head=dict(type="MaskedLanguageHead", in_channels=128, vocab_size=200),
)

pipeline = [
    dict(type="LoadImage"),
    dict(type="ResizePad", size=96),
    dict(type="Tokenize", tokenizer=tokenizer, max_length=64, train_on=texts, vocab_size=200),
    dict(type="MaskTokens", tokenizer=tokenizer, probability=0.3, predict_unmatched=False),
    dict(type="PackInputs"),
]
train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    drop_last=True,
    dataset=dict(data_root=data_root, pipeline=pipeline),
)
test_dataloader = dict(batch_size=32, num_workers=0, dataset=dict(data_root=data_root, pipeline=pipeline))

train_cfg = dict(max_epochs=6)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
default_hooks = dict(checkpoint=dict(interval=6))
