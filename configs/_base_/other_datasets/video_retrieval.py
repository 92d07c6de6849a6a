# Text-to-video retrieval on data sets that the paper does not use: what each has unless it says otherwise. The recipe of
# Table 7a, row "CLIPBERT 8x2", with half of its clips and epochs, as most of these videos are shorter than MSRVTT's. A leaf
# adds the data.
_base_ = [
    "../models/clipbert_r50_bert-base.py",
    "../datasets/text_to_video.py",
    "../datasets/text_to_video_val.py",
    "../datasets/frames_and_text.py",
    "../schedules/adamw_linear.py",
    "../default_runtime.py",
]
load_from = _base_.pretrained  # by images and their captions; docs/where_to_start.md has other starts
model = dict(head=dict(type="MatchingHead", in_channels=768, hidden_channels=1536))

train_clips = dict(type="SampleClips", num_clips=4, num_frames=2, clip_seconds=1.0, mode="random")
val_clips = dict(type="SampleClips", num_clips=1, num_frames=2, clip_seconds=1.0, mode="middle")
test_clips = dict(type="SampleClips", num_clips=16, num_frames=2, clip_seconds=1.0, mode="uniform")
train_dataloader = dict(
    batch_size=16,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    dataset=dict(pipeline=[dict(type="OpenVideo"), train_clips, *_base_.frames_and_text]),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    dataset=dict(pipeline=[dict(type="OpenVideo"), val_clips, *_base_.frames_and_text]),
)
test_dataloader = dict(
    batch_size=4,
    num_workers=4,
    dataset=dict(pipeline=[dict(type="OpenVideo"), test_clips, *_base_.frames_and_text]),
)

train_cfg = dict(max_epochs=10)
optim_wrapper = dict(optimizer=dict(lr=5e-5))
auto_scale_lr = dict(enable=False, base_batch_size=128)
