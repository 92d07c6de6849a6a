# ActivityNet-QA: open-ended questions on videos of two minutes, 1,000 answers; clips of 2 s, as for ActivityNet Captions.
#   bash tools/dist_train.sh configs/other_datasets/clipbert_r50_4xb16-8x2-10e_activitynet-qa.py 4
_base_ = "../_base_/other_datasets/open_ended_qa.py"
questions = dict(data_root="{{$CLIPBERT_ACTIVITYNET:data/activitynet}}", answer_file="annotations/qa_answers.json")
train_clips = dict(type="SampleClips", num_clips=8, num_frames=2, clip_seconds=2.0, mode="random")
val_clips = dict(type="SampleClips", num_clips=4, num_frames=2, clip_seconds=2.0, mode="uniform")
test_clips = dict(type="SampleClips", num_clips=16, num_frames=2, clip_seconds=2.0, mode="uniform")
train_dataloader = dict(
    dataset=dict(
        **questions,
        ann_file="annotations/qa_train.jsonl",
        pipeline=[dict(type="OpenVideo"), train_clips, *_base_.frames_and_text],
    )
)
val_dataloader = dict(
    dataset=dict(
        **questions,
        ann_file="annotations/qa_val.jsonl",
        pipeline=[dict(type="OpenVideo"), val_clips, *_base_.frames_and_text],
    )
)
test_dataloader = dict(
    dataset=dict(
        **questions,
        ann_file="annotations/qa_test.jsonl",
        pipeline=[dict(type="OpenVideo"), test_clips, *_base_.frames_and_text],
    )
)
groups = dict(free=["yes/no", "color", "object", "location", "number", "other"])  # as the publisher reports them
val_evaluator = dict(groups=groups)
test_evaluator = dict(groups=groups)
