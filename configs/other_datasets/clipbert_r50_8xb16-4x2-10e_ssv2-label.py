# Something-Something v2 retrieval by labels (SSv2-Label of Lei et al., Revealing Single Frame Bias, 2023). Not in the paper:
# the recipe of Table 7a with half of its clips, as a video takes 4 s, and half of its epochs.
#   bash tools/dist_train.sh configs/other_datasets/clipbert_r50_8xb16-4x2-10e_ssv2-label.py 8
_base_ = [
    "../_base_/models/clipbert_r50_bert-base.py",
    "../_base_/datasets/text_to_video.py",
    "../_base_/datasets/text_to_video_val.py",
    "../_base_/datasets/frames_and_text.py",
    "../_base_/schedules/adamw_linear.py",
    "../_base_/default_runtime.py",
]
load_from = _base_.pretrained  # by images and their captions; docs/where_to_start.md has other starts
ssv2 = "{{$CLIPBERT_SSV2:data/ssv2}}"

model = dict(head=dict(type="MatchingHead", in_channels=768, hidden_channels=1536))

train_clips = dict(type="SampleClips", num_clips=4, num_frames=2, clip_seconds=1.0, mode="random")
val_clips = dict(type="SampleClips", num_clips=1, num_frames=2, clip_seconds=1.0, mode="middle")
test_clips = dict(type="SampleClips", num_clips=16, num_frames=2, clip_seconds=1.0, mode="uniform")
train_dataloader = dict(
    batch_size=16,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    dataset=dict(
        data_root=ssv2,
        ann_file="annotations/label_train.jsonl",
        pipeline=[dict(type="OpenVideo"), train_clips, *_base_.frames_and_text],
    ),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    dataset=dict(
        data_root=ssv2,
        ann_file="annotations/label_val.jsonl",
        pipeline=[dict(type="OpenVideo"), val_clips, *_base_.frames_and_text],
    ),
)
test_dataloader = dict(
    batch_size=4,
    num_workers=4,
    dataset=dict(
        data_root=ssv2,
        ann_file="annotations/label_test.jsonl",
        pipeline=[dict(type="OpenVideo"), test_clips, *_base_.frames_and_text],
    ),
)
# Equal texts are one query, for which all videos with this text are right.
val_evaluator = dict(multi_positive=True)
test_evaluator = dict(multi_positive=True)

train_cfg = dict(max_epochs=10)
optim_wrapper = dict(optimizer=dict(lr=5e-5))
auto_scale_lr = dict(enable=False, base_batch_size=128)
