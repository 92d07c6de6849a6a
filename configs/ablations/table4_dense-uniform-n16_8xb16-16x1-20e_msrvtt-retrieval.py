# Table 4 of the paper, row "dense uniform, N_train = 16": MSRVTT retrieval, local validation.
# The paper's numbers: R1 15.5, R5 39.6, R10 55.0, MdR 9.
#   bash tools/dist_train.sh configs/ablations/table4_dense-uniform-n16_8xb16-16x1-20e_msrvtt-retrieval.py 8
_base_ = "../_base_/ablations/msrvtt_retrieval.py"
train_clips = dict(type="SampleClips", num_clips=16, num_frames=1, clip_seconds=1.0, mode="uniform")
test_clips = dict(type="SampleClips", num_clips=16, num_frames=1, clip_seconds=1.0, mode="uniform")
train_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), train_clips, *_base_.frames_and_text]))
test_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), test_clips, *_base_.frames_and_text]))
