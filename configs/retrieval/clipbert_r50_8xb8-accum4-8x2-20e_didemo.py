# Table 7b of the paper, row "CLIPBERT 8x2". The paper's numbers: R1 20.4, R5 48.0, R10 60.8, MdR 6.
#   bash tools/dist_train.sh configs/retrieval/clipbert_r50_8xb8-accum4-8x2-20e_didemo.py 8
_base_ = [
    "../_base_/models/clipbert_r50_bert-base.py",
    "../_base_/datasets/didemo.py",
    "../_base_/schedules/adamw_linear.py",
    "../_base_/default_runtime.py",
]
load_from = _base_.pretrained  # by images and their captions; docs/where_to_start.md has other starts

model = dict(head=dict(type="MatchingHead", in_channels=768, hidden_channels=1536))

train_clips = dict(type="SampleClips", num_clips=8, num_frames=2, clip_seconds=1.0, mode="random")
val_clips = dict(type="SampleClips", num_clips=2, num_frames=2, clip_seconds=1.0, mode="uniform")
test_clips = dict(type="SampleClips", num_clips=16, num_frames=2, clip_seconds=1.0, mode="uniform")
train_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), train_clips, *_base_.frames_and_text]))
val_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), val_clips, *_base_.frames_and_text]))
test_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), test_clips, *_base_.frames_and_text]))

train_cfg = dict(max_epochs=20, val_interval=2)
optim_wrapper = dict(optimizer=dict(lr=5e-5), accumulative_counts=4)
auto_scale_lr = dict(enable=False, base_batch_size=256)
