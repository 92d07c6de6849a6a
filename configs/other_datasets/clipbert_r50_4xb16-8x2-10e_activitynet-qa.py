# ActivityNet-QA: open-ended questions on videos of two minutes, 1,000 answers. Not in the paper: the recipe of Table 8b, row
# "CLIPBERT 8x2", with clips of 2 s as for ActivityNet Captions.
#   bash tools/dist_train.sh configs/other_datasets/clipbert_r50_4xb16-8x2-10e_activitynet-qa.py 4
_base_ = [
    "../_base_/models/clipbert_r50_bert-base.py",
    "../_base_/datasets/open_ended.py",
    "../_base_/datasets/frames_and_text.py",
    "../_base_/schedules/adamw_linear.py",
    "../_base_/default_runtime.py",
]
load_from = _base_.pretrained  # by images and their captions; docs/where_to_start.md has other starts
activitynet = "{{$CLIPBERT_ACTIVITYNET:data/activitynet}}"

model = dict(head=dict(type="OpenEndedHead", in_channels=768, num_answers=1000, hidden_channels=1536))

train_clips = dict(type="SampleClips", num_clips=8, num_frames=2, clip_seconds=2.0, mode="random")
val_clips = dict(type="SampleClips", num_clips=4, num_frames=2, clip_seconds=2.0, mode="uniform")
test_clips = dict(type="SampleClips", num_clips=16, num_frames=2, clip_seconds=2.0, mode="uniform")
train_dataloader = dict(
    batch_size=16,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    dataset=dict(
        data_root=activitynet,
        ann_file="annotations/qa_train.jsonl",
        answer_file="annotations/qa_answers.json",
        pipeline=[dict(type="OpenVideo"), train_clips, *_base_.frames_and_text],
    ),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    dataset=dict(
        data_root=activitynet,
        ann_file="annotations/qa_val.jsonl",
        answer_file="annotations/qa_answers.json",
        pipeline=[dict(type="OpenVideo"), val_clips, *_base_.frames_and_text],
    ),
)
test_dataloader = dict(
    batch_size=4,
    num_workers=4,
    dataset=dict(
        data_root=activitynet,
        ann_file="annotations/qa_test.jsonl",
        answer_file="annotations/qa_answers.json",
        pipeline=[dict(type="OpenVideo"), test_clips, *_base_.frames_and_text],
    ),
)
groups = dict(free=["yes/no", "color", "object", "location", "number", "other"])  # as the publisher reports them
val_evaluator = dict(groups=groups)
test_evaluator = dict(groups=groups)

train_cfg = dict(max_epochs=10)
optim_wrapper = dict(optimizer=dict(lr=5e-5))
auto_scale_lr = dict(enable=False, base_batch_size=64)
