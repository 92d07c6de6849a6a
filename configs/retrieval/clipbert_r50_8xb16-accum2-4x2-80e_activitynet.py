# Table 7c of the paper, row "CLIPBERT 4x2*". The paper's numbers: R1 20.9, R5 48.6, R10 62.8, MdR 6.
#   bash tools/dist_train.sh configs/retrieval/clipbert_r50_8xb16-accum2-4x2-80e_activitynet.py 8
_base_ = [
    "../_base_/models/clipbert_r50_bert-base.py",
    "../_base_/datasets/activitynet.py",
    "../_base_/schedules/adamw_linear.py",
    "../_base_/default_runtime.py",
]
load_from = _base_.pretrained  # by images and their captions; docs/where_to_start.md has other starts

model = dict(head=dict(type="MatchingHead", in_channels=768, hidden_channels=1536))

train_clips = dict(type="SampleClips", num_clips=4, num_frames=2, clip_seconds=2.0, mode="random")
test_clips = dict(type="SampleClips", num_clips=16, num_frames=2, clip_seconds=2.0, mode="uniform")
train_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), train_clips, *_base_.frames_and_text]))
test_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), test_clips, *_base_.frames_and_text]))

train_cfg = dict(max_epochs=80, val_interval=4)
optim_wrapper = dict(optimizer=dict(lr=5e-5), accumulative_counts=2)
auto_scale_lr = dict(enable=False, base_batch_size=256)
