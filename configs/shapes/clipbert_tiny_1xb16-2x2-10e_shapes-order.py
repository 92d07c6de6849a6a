# Questions of order, as TGIF-QA's transition, on the Shapes world; starts from its pre-training.
#   python tools/train.py configs/shapes/clipbert_tiny_1xb16-2x2-10e_shapes-order.py
_base_ = [
    "../_base_/models/clipbert_tiny.py",
    "../_base_/schedules/adamw_linear.py",
    "../_base_/default_runtime.py",
]
data_root = "{{$SHAPES_ROOT:data/shapes}}"
tokenizer = f"{data_root}/tokenizer"
captions = [f"{data_root}/pretrain.jsonl", f"{data_root}/train.jsonl"]
load_from = "work_dirs/clipbert_tiny_1xb32-4e_shapes-pretrain/epoch_4.pth"

model = dict(
    backbone=dict(norm_eval=True),
    head=dict(type="MultipleChoiceHead", in_channels=128, hidden_channels=256, dropout=0.0),
)

frames_and_text = [
    dict(type="DecodeClips"),
    dict(type="ResizePad", size=64),
    dict(type="Tokenize", tokenizer=tokenizer, max_length=64, train_on=captions, vocab_size=200),
    dict(type="PackInputs"),
]
train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    drop_last=True,
    collate_fn=dict(type="clipbert_mm.collate_items"),
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="MultipleChoiceDataset",
        data_root=data_root,
        ann_file="order_train.jsonl",
        media_folder="videos",
        pipeline=[
            dict(type="OpenVideo"),
            dict(type="SampleClips", num_clips=2, num_frames=2, clip_seconds=1.0, mode="random"),
            *frames_and_text,
        ],
    ),
)
test_dataloader = dict(
    batch_size=16,
    num_workers=1,
    collate_fn=dict(type="clipbert_mm.collate_items"),
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="MultipleChoiceDataset",
        data_root=data_root,
        ann_file="order_test.jsonl",
        media_folder="videos",
        test_mode=True,
        pipeline=[
            dict(type="OpenVideo"),
            dict(type="SampleClips", num_clips=8, num_frames=2, clip_seconds=1.0, mode="uniform"),
            *frames_and_text,
        ],
    ),
)
# Validation: some of the held-out videos, by fewer clips.
val_dataloader = dict(
    test_dataloader,
    dataset=dict(
        test_dataloader["dataset"],
        indices=50,
        pipeline=[
            dict(type="OpenVideo"),
            dict(type="SampleClips", num_clips=4, num_frames=2, clip_seconds=1.0, mode="uniform"),
            *frames_and_text,
        ],
    ),
)

train_cfg = dict(max_epochs=10)
val_cfg = dict(type="ValLoop")
val_evaluator = dict(type="AnswerAccuracy")
test_cfg = dict(type="TestLoop")
test_evaluator = dict(type="AnswerAccuracy")
optim_wrapper = dict(optimizer=dict(lr=5e-4))
auto_scale_lr = dict(enable=False, base_batch_size=16)
default_hooks = dict(
    checkpoint=dict(interval=10),
    checkpoint_fit=dict(reinit=["head"]),  # other answers than in pre-training
)
