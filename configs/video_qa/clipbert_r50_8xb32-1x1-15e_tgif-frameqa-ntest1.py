# Table 8a of the paper, row "CLIPBERT 1x1 (N_test = 1), frameQA". The paper's numbers: accuracy 59.4.
# Trained as without -ntest1; a checkpoint of that serves here.
# num_answers is the size of frameqa_answers.json, which the converter says.
#   bash tools/dist_train.sh configs/video_qa/clipbert_r50_8xb32-1x1-15e_tgif-frameqa-ntest1.py 8
_base_ = [
    "../_base_/models/clipbert_r50_bert-base.py",
    "../_base_/datasets/tgif_frameqa.py",
    "../_base_/schedules/adamw_linear.py",
    "../_base_/default_runtime.py",
]
load_from = _base_.pretrained  # by images and their captions; docs/where_to_start.md has other starts

model = dict(head=dict(type="OpenEndedHead", in_channels=768, num_answers=1540, hidden_channels=1536))

train_clips = dict(type="SampleClips", num_clips=1, num_frames=1, clip_seconds=1.0, mode="random")
test_clips = dict(type="SampleClips", num_clips=1, num_frames=1, clip_seconds=1.0, mode="middle")
train_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), train_clips, *_base_.frames_and_text]))
test_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), test_clips, *_base_.frames_and_text]))

train_cfg = dict(max_epochs=15)
optim_wrapper = dict(optimizer=dict(lr=1e-4))
auto_scale_lr = dict(enable=False, base_batch_size=256)
