# Table 2 of the paper, row "mean pooling, T = 4": MSRVTT retrieval, local validation.
# The paper's numbers: R1 10.8, R5 30.0, R10 43.6, MdR 14.
#   bash tools/dist_train.sh configs/ablations/table2_mean-t4_8xb16-1x4-20e_msrvtt-retrieval.py 8
_base_ = "../_base_/ablations/msrvtt_retrieval.py"
train_clips = dict(type="SampleClips", num_clips=1, num_frames=4, clip_seconds=1.0, mode="random")
val_clips = dict(type="SampleClips", num_clips=1, num_frames=4, clip_seconds=1.0, mode="middle")
test_clips = dict(type="SampleClips", num_clips=1, num_frames=4, clip_seconds=1.0, mode="middle")
train_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), train_clips, *_base_.frames_and_text]))
val_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), val_clips, *_base_.frames_and_text]))
test_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), test_clips, *_base_.frames_and_text]))
