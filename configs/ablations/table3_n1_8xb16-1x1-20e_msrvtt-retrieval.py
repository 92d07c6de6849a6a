# Table 3 of the paper, row "N_train = 1": MSRVTT retrieval, local validation.
# The paper's numbers: R1 12.7, R5 34.5, R10 48.8, MdR 11.
#   bash tools/dist_train.sh configs/ablations/table3_n1_8xb16-1x1-20e_msrvtt-retrieval.py 8
_base_ = "../_base_/ablations/msrvtt_retrieval.py"
train_clips = dict(type="SampleClips", num_clips=1, num_frames=1, clip_seconds=1.0, mode="random")
test_clips = dict(type="SampleClips", num_clips=16, num_frames=1, clip_seconds=1.0, mode="uniform")
train_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), train_clips, *_base_.frames_and_text]))
test_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), test_clips, *_base_.frames_and_text]))
