# Tables 1 to 6 of the paper on MSRVTT-QA: what a row has unless it says otherwise. One clip of one frame in training,
# the middle frame in testing, L = 448, LogSumExp, image-text pre-training (Section 4.2).
_base_ = [
    "../models/clipbert_r50_bert-base.py",
    "../datasets/msrvtt_qa.py",
    "../schedules/adamw_linear.py",
    "../default_runtime.py",
]
load_from = _base_.pretrained  # by images and their captions; docs/where_to_start.md has other starts
model = dict(head=dict(type="OpenEndedHead", in_channels=768, num_answers=1500, hidden_channels=1536))

train_clips = dict(type="SampleClips", num_clips=1, num_frames=1, clip_seconds=1.0, mode="random")
test_clips = dict(type="SampleClips", num_clips=1, num_frames=1, clip_seconds=1.0, mode="middle")
train_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), train_clips, *_base_.frames_and_text]))
test_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), test_clips, *_base_.frames_and_text]))

train_cfg = dict(max_epochs=10)
optim_wrapper = dict(optimizer=dict(lr=5e-5))
auto_scale_lr = dict(enable=False, base_batch_size=64)
