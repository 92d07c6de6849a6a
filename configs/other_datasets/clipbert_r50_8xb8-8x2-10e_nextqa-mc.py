# NExT-QA multiple choice: five options a question, accuracy also of causal, temporal and descriptive questions. Not in the
# paper: the recipe of Table 8a's transition with more clips, as a video takes 44 s.
#   bash tools/dist_train.sh configs/other_datasets/clipbert_r50_8xb8-8x2-10e_nextqa-mc.py 8
_base_ = [
    "../_base_/models/clipbert_r50_bert-base.py",
    "../_base_/datasets/multiple_choice.py",
    "../_base_/datasets/frames_and_text.py",
    "../_base_/schedules/adamw_linear.py",
    "../_base_/default_runtime.py",
]
load_from = _base_.pretrained  # by images and their captions; docs/where_to_start.md has other starts
nextqa = "{{$CLIPBERT_NEXTQA:data/nextqa}}"

model = dict(head=dict(type="MultipleChoiceHead", in_channels=768, hidden_channels=1536))

train_clips = dict(type="SampleClips", num_clips=8, num_frames=2, clip_seconds=1.0, mode="random")
val_clips = dict(type="SampleClips", num_clips=4, num_frames=2, clip_seconds=1.0, mode="uniform")
test_clips = dict(type="SampleClips", num_clips=16, num_frames=2, clip_seconds=1.0, mode="uniform")
train_dataloader = dict(
    batch_size=8,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    dataset=dict(
        data_root=nextqa,
        ann_file="annotations/mc_train.jsonl",
        pipeline=[dict(type="OpenVideo"), train_clips, *_base_.frames_and_text],
    ),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    dataset=dict(
        data_root=nextqa,
        ann_file="annotations/mc_val.jsonl",
        pipeline=[dict(type="OpenVideo"), val_clips, *_base_.frames_and_text],
    ),
)
test_dataloader = dict(
    batch_size=4,
    num_workers=4,
    dataset=dict(
        data_root=nextqa,
        ann_file="annotations/mc_test.jsonl",
        pipeline=[dict(type="OpenVideo"), test_clips, *_base_.frames_and_text],
    ),
)
groups = dict(
    causal=["CW", "CH"], temporal=["TC", "TN"], descriptive=["DC", "DL", "DO"]
)  # as the publisher reports them
val_evaluator = dict(groups=groups)
test_evaluator = dict(groups=groups)

train_cfg = dict(max_epochs=10)
optim_wrapper = dict(optimizer=dict(lr=5e-5))
auto_scale_lr = dict(enable=False, base_batch_size=64)
