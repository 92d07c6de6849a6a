# Table 3 of the paper, row "mean pooling, N_train = 4": MSRVTT-QA, validation.
# The paper's numbers: accuracy 35.40.
#   bash tools/dist_train.sh configs/ablations/table3_mean-n4_4xb16-4x1-10e_msrvtt-qa.py 4
_base_ = "../_base_/ablations/msrvtt_qa.py"
model = dict(aggregator=dict(type="MeanAggregator"))
train_clips = dict(type="SampleClips", num_clips=4, num_frames=1, clip_seconds=1.0, mode="random")
test_clips = dict(type="SampleClips", num_clips=16, num_frames=1, clip_seconds=1.0, mode="uniform")
train_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), train_clips, *_base_.frames_and_text]))
test_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), test_clips, *_base_.frames_and_text]))
