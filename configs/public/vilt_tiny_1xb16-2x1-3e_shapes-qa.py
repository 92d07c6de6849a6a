# Open-ended questions by a ViLT-like model on the Shapes world; starts from its pre-training.
#   python tools/train.py configs/public/vilt_tiny_1xb16-2x1-3e_shapes-qa.py
_base_ = [
    "../_base_/models/vilt_tiny.py",
    "../_base_/schedules/adamw_linear.py",
    "../_base_/default_runtime.py",
]
data_root = "{{$SHAPES_ROOT:data/shapes}}"
tokenizer = f"{data_root}/tokenizer"
captions = [f"{data_root}/pretrain.jsonl", f"{data_root}/train.jsonl"]
load_from = "work_dirs/vilt_tiny_1xb32-3e_shapes-pretrain/epoch_3.pth"

model = dict(
    head=dict(type="OpenEndedHead", in_channels=128, num_answers=14, hidden_channels=256, dropout=0.0),
    pack_pairs=True,
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
        type="OpenEndedDataset",
        data_root=data_root,
        ann_file="qa_train.jsonl",
        answer_file="answers.json",
        media_folder="videos",
        pipeline=[
            dict(type="OpenVideo"),
            dict(type="SampleClips", num_clips=2, num_frames=1, clip_seconds=1.0, mode="random"),
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
        type="OpenEndedDataset",
        data_root=data_root,
        ann_file="qa_test.jsonl",
        answer_file="answers.json",
        media_folder="videos",
        test_mode=True,
        pipeline=[
            dict(type="OpenVideo"),
            dict(type="SampleClips", num_clips=8, num_frames=1, clip_seconds=1.0, mode="uniform"),
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
            dict(type="SampleClips", num_clips=4, num_frames=1, clip_seconds=1.0, mode="uniform"),
            *frames_and_text,
        ],
    ),
)

train_cfg = dict(max_epochs=3)
val_cfg = dict(type="ValLoop")
val_evaluator = dict(type="AnswerAccuracy")
test_cfg = dict(type="TestLoop")
test_evaluator = dict(type="AnswerAccuracy")
optim_wrapper = dict(optimizer=dict(lr=1e-3))
auto_scale_lr = dict(enable=False, base_batch_size=16)
default_hooks = dict(
    checkpoint=dict(interval=3),
    checkpoint_fit=dict(reinit=["head"]),  # other answers than in pre-training
)
