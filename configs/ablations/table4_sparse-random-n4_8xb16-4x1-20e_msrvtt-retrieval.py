# Table 4 of the paper, row "sparse random, N_train = 4": MSRVTT retrieval, local validation.
# The paper's numbers: R1 15.7, R5 41.9, R10 55.3, MdR 8.
#   bash tools/dist_train.sh configs/ablations/table4_sparse-random-n4_8xb16-4x1-20e_msrvtt-retrieval.py 8
_base_ = "../_base_/ablations/msrvtt_retrieval.py"
train_clips = dict(type="SampleClips", num_clips=4, num_frames=1, clip_seconds=1.0, mode="random")
test_clips = dict(type="SampleClips", num_clips=16, num_frames=1, clip_seconds=1.0, mode="uniform")
train_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), train_clips, *_base_.frames_and_text]))
test_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), test_clips, *_base_.frames_and_text]))
