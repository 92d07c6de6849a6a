# Table 2 of the paper, row "Conv(2+1)D, T = 16": MSRVTT retrieval, local validation.
# The paper's numbers: R1 9.9, R5 27.3, R10 39.6, MdR 17.
#   bash tools/dist_train.sh configs/ablations/table2_conv2plus1d-t16_8xb16-1x16-20e_msrvtt-retrieval.py 8
_base_ = "../_base_/ablations/msrvtt_retrieval.py"
model = dict(temporal_fusion=dict(type="Conv2Plus1DFusion", channels=768))
train_clips = dict(type="SampleClips", num_clips=1, num_frames=16, clip_seconds=1.0, mode="random")
val_clips = dict(type="SampleClips", num_clips=1, num_frames=16, clip_seconds=1.0, mode="middle")
test_clips = dict(type="SampleClips", num_clips=1, num_frames=16, clip_seconds=1.0, mode="middle")
train_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), train_clips, *_base_.frames_and_text]))
val_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), val_clips, *_base_.frames_and_text]))
test_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), test_clips, *_base_.frames_and_text]))
