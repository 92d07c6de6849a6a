# Table 2 of the paper, row "Conv3D, T = 16": MSRVTT retrieval, local validation.
# The paper's numbers: R1 10.1, R5 28.9, R10 41.7, MdR 16.
#   bash tools/dist_train.sh configs/ablations/table2_conv3d-t16_8xb16-1x16-20e_msrvtt-retrieval.py 8
_base_ = "../_base_/ablations/msrvtt_retrieval.py"
model = dict(temporal_fusion=dict(type="Conv3DFusion", channels=768))
train_clips = dict(type="SampleClips", num_clips=1, num_frames=16, clip_seconds=1.0, mode="random")
val_clips = dict(type="SampleClips", num_clips=1, num_frames=16, clip_seconds=1.0, mode="middle")
test_clips = dict(type="SampleClips", num_clips=1, num_frames=16, clip_seconds=1.0, mode="middle")
train_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), train_clips, *_base_.frames_and_text]))
val_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), val_clips, *_base_.frames_and_text]))
test_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), test_clips, *_base_.frames_and_text]))
