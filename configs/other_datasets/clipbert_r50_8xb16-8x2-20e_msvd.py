# MSVD text-to-video retrieval, 670 test videos of about 41 captions each. Not in the paper: the recipe of Table 7a, row
# "CLIPBERT 8x2".
#   bash tools/dist_train.sh configs/other_datasets/clipbert_r50_8xb16-8x2-20e_msvd.py 8
_base_ = [
    "../_base_/models/clipbert_r50_bert-base.py",
    "../_base_/datasets/text_to_video.py",
    "../_base_/datasets/text_to_video_val.py",
    "../_base_/datasets/frames_and_text.py",
    "../_base_/schedules/adamw_linear.py",
    "../_base_/default_runtime.py",
]
load_from = _base_.pretrained  # by images and their captions; docs/where_to_start.md has other starts
msvd = "{{$CLIPBERT_MSVD:data/msvd}}"

model = dict(head=dict(type="MatchingHead", in_channels=768, hidden_channels=1536))

train_clips = dict(type="SampleClips", num_clips=8, num_frames=2, clip_seconds=1.0, mode="random")
val_clips = dict(type="SampleClips", num_clips=1, num_frames=2, clip_seconds=1.0, mode="middle")
test_clips = dict(type="SampleClips", num_clips=16, num_frames=2, clip_seconds=1.0, mode="uniform")
train_dataloader = dict(
    batch_size=16,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    dataset=dict(
        data_root=msvd,
        ann_file="annotations/msvd_train.jsonl",
        pipeline=[dict(type="OpenVideo"), train_clips, *_base_.frames_and_text],
    ),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    dataset=dict(
        data_root=msvd,
        ann_file="annotations/msvd_val.jsonl",
        indices=80,
        pipeline=[dict(type="OpenVideo"), val_clips, *_base_.frames_and_text],
    ),
)
test_dataloader = dict(
    batch_size=4,
    num_workers=4,
    dataset=dict(
        data_root=msvd,
        ann_file="annotations/msvd_test.jsonl",
        pipeline=[dict(type="OpenVideo"), test_clips, *_base_.frames_and_text],
    ),
)

train_cfg = dict(max_epochs=20)
optim_wrapper = dict(optimizer=dict(lr=5e-5))
auto_scale_lr = dict(enable=False, base_batch_size=128)
