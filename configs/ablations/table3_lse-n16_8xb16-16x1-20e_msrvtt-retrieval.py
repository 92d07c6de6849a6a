# Table 3 of the paper, row "LogSumExp, N_train = 16": MSRVTT retrieval, local validation.
# The paper's numbers: R1 17.4, R5 41.5, R10 55.5, MdR 8.
#   bash tools/dist_train.sh configs/ablations/table3_lse-n16_8xb16-16x1-20e_msrvtt-retrieval.py 8
_base_ = "../_base_/ablations/msrvtt_retrieval.py"
train_clips = dict(type="SampleClips", num_clips=16, num_frames=1, clip_seconds=1.0, mode="random")
test_clips = dict(type="SampleClips", num_clips=16, num_frames=1, clip_seconds=1.0, mode="uniform")
train_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), train_clips, *_base_.frames_and_text]))
test_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), test_clips, *_base_.frames_and_text]))
