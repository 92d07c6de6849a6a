# Table 2 of the paper, row "mean pooling, T = 8": MSRVTT-QA, validation.
# The paper's numbers: accuracy 35.69.
#   bash tools/dist_train.sh configs/ablations/table2_mean-t8_4xb16-1x8-10e_msrvtt-qa.py 4
_base_ = "../_base_/ablations/msrvtt_qa.py"
train_clips = dict(type="SampleClips", num_clips=1, num_frames=8, clip_seconds=1.0, mode="random")
val_clips = dict(type="SampleClips", num_clips=1, num_frames=8, clip_seconds=1.0, mode="middle")
test_clips = dict(type="SampleClips", num_clips=1, num_frames=8, clip_seconds=1.0, mode="middle")
train_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), train_clips, *_base_.frames_and_text]))
val_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), val_clips, *_base_.frames_and_text]))
test_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), test_clips, *_base_.frames_and_text]))
