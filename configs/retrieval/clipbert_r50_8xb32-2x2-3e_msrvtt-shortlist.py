# Vectors of texts and clips for the model of clipbert_r50_8xb16-8x2-20e_msrvtt.py, learnt from its scores on its training set.
# By them a search chooses the videos that the model then scores. The model itself stays as it is. Not of the paper.
#   bash tools/dist_train.sh configs/retrieval/clipbert_r50_8xb32-2x2-3e_msrvtt-shortlist.py 8
_base_ = [
    "../_base_/models/clipbert_r50_bert-base.py",
    "../_base_/datasets/msrvtt_retrieval.py",
    "../_base_/schedules/adamw_linear.py",
    "../_base_/default_runtime.py",
]
load_from = "work_dirs/clipbert_r50_8xb16-8x2-20e_msrvtt/epoch_20.pth"

model = dict(
    encoder=dict(vector_size=256),
    head=dict(type="MatchingHead", in_channels=768, hidden_channels=1536),
    distillation=dict(type="VectorDistillation"),
)

# The joint encoder scores all texts of a batch with all its clips, each alone: two clips of many videos tell more than eight of
# few.
train_clips = dict(type="SampleClips", num_clips=2, num_frames=2, clip_seconds=1.0, mode="random")
test_clips = dict(type="SampleClips", num_clips=16, num_frames=2, clip_seconds=1.0, mode="uniform")
val_clips = dict(type="SampleClips", num_clips=1, num_frames=2, clip_seconds=1.0, mode="middle")
train_dataloader = dict(
    batch_size=32,
    dataset=dict(
        num_negatives=0,  # the other videos of the batch are there
        pipeline=[dict(type="OpenVideo"), train_clips, *_base_.frames_and_text],
    ),
)
val_dataloader = dict(dataset=dict(indices=600, pipeline=[dict(type="OpenVideo"), val_clips, *_base_.frames_and_text]))
test_dataloader = dict(
    dataset=dict(
        ann_file="annotations/retrieval_test-1ka.jsonl",
        pipeline=[dict(type="OpenVideo"), test_clips, *_base_.frames_and_text],
    )
)
# The joint encoder scores the tenth of the videos that the vectors choose, in both directions.
val_cfg = dict(shortlist=0.1)
test_cfg = dict(shortlist=0.1)

train_cfg = dict(max_epochs=3)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
auto_scale_lr = dict(enable=False, base_batch_size=256)
