# Table 2 of the paper, row "mean pooling, T = 16": MSRVTT retrieval, local validation.
# The paper's numbers: R1 11.6, R5 33.9, R10 45.8, MdR 13.
#   bash tools/dist_train.sh configs/ablations/table2_mean-t16_8xb16-1x16-20e_msrvtt-retrieval.py 8
_base_ = "../_base_/ablations/msrvtt_retrieval.py"
train_clips = dict(type="SampleClips", num_clips=1, num_frames=16, clip_seconds=1.0, mode="random")
val_clips = dict(type="SampleClips", num_clips=1, num_frames=16, clip_seconds=1.0, mode="middle")
test_clips = dict(type="SampleClips", num_clips=1, num_frames=16, clip_seconds=1.0, mode="middle")
train_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), train_clips, *_base_.frames_and_text]))
val_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), val_clips, *_base_.frames_and_text]))
test_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), test_clips, *_base_.frames_and_text]))
