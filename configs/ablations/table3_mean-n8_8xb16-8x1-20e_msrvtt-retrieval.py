# Table 3 of the paper, row "mean pooling, N_train = 8": MSRVTT retrieval, local validation.
# The paper's numbers: R1 13.4, R5 36.4, R10 49.7, MdR 11.
#   bash tools/dist_train.sh configs/ablations/table3_mean-n8_8xb16-8x1-20e_msrvtt-retrieval.py 8
_base_ = "../_base_/ablations/msrvtt_retrieval.py"
model = dict(aggregator=dict(type="MeanAggregator"))
train_clips = dict(type="SampleClips", num_clips=8, num_frames=1, clip_seconds=1.0, mode="random")
test_clips = dict(type="SampleClips", num_clips=16, num_frames=1, clip_seconds=1.0, mode="uniform")
train_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), train_clips, *_base_.frames_and_text]))
test_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), test_clips, *_base_.frames_and_text]))
