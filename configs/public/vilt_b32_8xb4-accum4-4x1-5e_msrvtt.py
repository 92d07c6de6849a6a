# Fine-tuning of the public ViLT for text-to-video retrieval on MSRVTT by the paper's recipe: N_train = 4 random clips of one
# frame, each scored on its own and pooled by LogSumExp; each caption against 15 of other videos, as in ViLT's own fine-tuning
# (Kim et al., ICML 2021, Section 4.4), since it has no vectors that could choose hard ones; tested on 8 uniform clips of
# 1K-A, all pairs. It has not been run yet, and nobody has published such a figure.
#   bash tools/dist_train.sh configs/public/vilt_b32_8xb4-accum4-4x1-5e_msrvtt.py 8
_base_ = [
    "../_base_/models/vilt_b32.py",
    "../_base_/datasets/msrvtt_retrieval.py",
    "../_base_/schedules/adamw_linear.py",
    "../_base_/default_runtime.py",
]
load_from = _base_.vilt

model = dict(
    head=dict(type="SoftmaxRankingHead", in_channels=768, hidden_channels=None, dropout=0.0),
    frozen=[],
    checkpointed=["encoder.transformer.layer"],
)

train_clips = dict(type="SampleClips", num_clips=4, num_frames=1, clip_seconds=1.0, mode="random")
val_clips = dict(type="SampleClips", num_clips=1, num_frames=1, clip_seconds=1.0, mode="middle")
test_clips = dict(type="SampleClips", num_clips=8, num_frames=1, clip_seconds=1.0, mode="uniform")
steps = [dict(type="DecodeClips"), *_base_.resize_and_text]
train_dataloader = dict(
    batch_size=4,
    dataset=dict(num_negatives=15, pipeline=[dict(type="OpenVideo"), train_clips, *steps]),
)
val_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), val_clips, *steps]))
test_dataloader = dict(
    dataset=dict(
        ann_file="annotations/retrieval_test-1ka.jsonl",
        pipeline=[dict(type="OpenVideo"), test_clips, *steps],
    )
)

train_cfg = dict(max_epochs=5)
optim_wrapper = dict(optimizer=dict(lr=1e-4), accumulative_counts=4)
auto_scale_lr = dict(enable=False, base_batch_size=128)
