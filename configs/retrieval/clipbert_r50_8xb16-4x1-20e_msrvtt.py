# Table 7a of the paper, row "CLIPBERT 4x1". The paper's numbers: R1 19.8, R5 45.1, R10 57.5, MdR 7.
#   bash tools/dist_train.sh configs/retrieval/clipbert_r50_8xb16-4x1-20e_msrvtt.py 8
_base_ = [
    "../_base_/models/clipbert_r50_bert-base.py",
    "../_base_/datasets/msrvtt_retrieval.py",
    "../_base_/schedules/adamw_linear.py",
    "../_base_/default_runtime.py",
]
load_from = _base_.pretrained  # by images and their captions; docs/where_to_start.md has other starts

model = dict(head=dict(type="MatchingHead", in_channels=768, hidden_channels=1536))

train_clips = dict(type="SampleClips", num_clips=4, num_frames=1, clip_seconds=1.0, mode="random")
test_clips = dict(type="SampleClips", num_clips=16, num_frames=1, clip_seconds=1.0, mode="uniform")
train_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), train_clips, *_base_.frames_and_text]))
val_dataloader = dict(dataset=dict(indices=600))
test_dataloader = dict(
    dataset=dict(
        ann_file="annotations/retrieval_test-1ka.jsonl",
        pipeline=[dict(type="OpenVideo"), test_clips, *_base_.frames_and_text],
    )
)

train_cfg = dict(max_epochs=20)
optim_wrapper = dict(optimizer=dict(lr=5e-5))
auto_scale_lr = dict(enable=False, base_batch_size=128)
