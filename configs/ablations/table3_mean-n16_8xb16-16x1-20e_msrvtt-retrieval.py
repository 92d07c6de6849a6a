# Table 3 of the paper, row "mean pooling, N_train = 16": MSRVTT retrieval, local validation.
# The paper's numbers: R1 15.2, R5 39.4, R10 53.1, MdR 9.
#   bash tools/dist_train.sh configs/ablations/table3_mean-n16_8xb16-16x1-20e_msrvtt-retrieval.py 8
_base_ = "../_base_/ablations/msrvtt_retrieval.py"
model = dict(aggregator=dict(type="MeanAggregator"))
train_clips = dict(type="SampleClips", num_clips=16, num_frames=1, clip_seconds=1.0, mode="random")
test_clips = dict(type="SampleClips", num_clips=16, num_frames=1, clip_seconds=1.0, mode="uniform")
train_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), train_clips, *_base_.frames_and_text]))
test_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), test_clips, *_base_.frames_and_text]))
