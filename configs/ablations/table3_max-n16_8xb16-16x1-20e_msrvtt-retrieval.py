# Table 3 of the paper, row "max pooling, N_train = 16": MSRVTT retrieval, local validation.
# The paper's numbers: R1 12.5, R5 33.1, R10 46.8, MdR 12.
#   bash tools/dist_train.sh configs/ablations/table3_max-n16_8xb16-16x1-20e_msrvtt-retrieval.py 8
_base_ = "../_base_/ablations/msrvtt_retrieval.py"
model = dict(aggregator=dict(type="MaxAggregator"))
train_clips = dict(type="SampleClips", num_clips=16, num_frames=1, clip_seconds=1.0, mode="random")
test_clips = dict(type="SampleClips", num_clips=16, num_frames=1, clip_seconds=1.0, mode="uniform")
train_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), train_clips, *_base_.frames_and_text]))
test_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), test_clips, *_base_.frames_and_text]))
