# Table 3 of the paper, row "max pooling, N_train = 2": MSRVTT retrieval, local validation.
# The paper's numbers: R1 8.5, R5 28.7, R10 42.2, MdR 14.
#   bash tools/dist_train.sh configs/ablations/table3_max-n2_8xb16-2x1-20e_msrvtt-retrieval.py 8
_base_ = "../_base_/ablations/msrvtt_retrieval.py"
model = dict(aggregator=dict(type="MaxAggregator"))
train_clips = dict(type="SampleClips", num_clips=2, num_frames=1, clip_seconds=1.0, mode="random")
test_clips = dict(type="SampleClips", num_clips=16, num_frames=1, clip_seconds=1.0, mode="uniform")
train_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), train_clips, *_base_.frames_and_text]))
test_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), test_clips, *_base_.frames_and_text]))
