# Retrieval of the tables' twins, what a row has unless it says otherwise: one clip of one frame in training, the middle frame
# in testing, L = 64, LogSumExp (Section 4.2). A test ranks 10 captions for each video, as MSRVTT's multiple-choice test has a
# retrieval model rank 5.
_base_ = [
    "../../_base_/models/clipbert_tiny.py",
    "../../_base_/datasets/text_to_video.py",
    "../../_base_/schedules/adamw_linear.py",
    "../../_base_/default_runtime.py",
]
data_root = "{{$SHAPES_ROOT:data/shapes_hard}}"
tokenizer = f"{data_root}/tokenizer"
texts = [f"{data_root}/{name}.jsonl" for name in ("pretrain", "train", "qa_train")]

# Four times the usual spread, so that a head of this width passes gradients on from the beginning.
init = dict(type="Normal", layer="Linear", std=0.08)
model = dict(
    backbone=dict(norm_eval=True),
    encoder=dict(grid_size=9),
    head=dict(type="MatchingHead", in_channels=128, hidden_channels=256, dropout=0.0, init_cfg=init),
)

frames_and_text = [
    dict(type="DecodeClips"),
    dict(type="ResizePad", size=64),
    dict(type="Tokenize", tokenizer=tokenizer, max_length=64, train_on=texts, vocab_size=200),
    dict(type="PackInputs"),
]
train_clips = dict(type="SampleClips", num_clips=1, num_frames=1, clip_seconds=1.0, mode="random")
test_clips = dict(type="SampleClips", num_clips=1, num_frames=1, clip_seconds=1.0, mode="middle")
train_dataloader = dict(
    batch_size=10,
    num_workers=0,
    drop_last=True,
    dataset=dict(
        data_root=data_root,
        captions_per_item=3,
        num_negatives=1,
        pipeline=[dict(type="OpenVideo"), train_clips, *frames_and_text],
    ),
)
test_dataloader = dict(
    batch_size=10,
    num_workers=0,
    dataset=dict(
        _delete_=True,
        type="MultipleChoiceDataset",
        data_root=data_root,
        ann_file="choice_test.jsonl",
        media_folder="videos",
        test_mode=True,
        pipeline=[dict(type="OpenVideo"), test_clips, *frames_and_text],
    ),
)
test_cfg = dict(_delete_=True, type="TestLoop")
test_evaluator = dict(_delete_=True, type="AnswerAccuracy")

train_cfg = dict(max_epochs=10)
optim_wrapper = dict(optimizer=dict(lr=5e-4))
default_hooks = dict(checkpoint=dict(interval=10))
