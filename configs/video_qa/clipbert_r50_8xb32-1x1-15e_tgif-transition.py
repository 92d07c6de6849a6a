# Table 8a of the paper, row "CLIPBERT 1x1, transition". The paper's numbers: accuracy 87.8.
#   bash tools/dist_train.sh configs/video_qa/clipbert_r50_8xb32-1x1-15e_tgif-transition.py 8
_base_ = [
    "../_base_/models/clipbert_r50_bert-base.py",
    "../_base_/datasets/tgif_choice.py",
    "../_base_/schedules/adamw_linear.py",
    "../_base_/default_runtime.py",
]
load_from = _base_.pretrained  # by images and their captions; docs/where_to_start.md has other starts

model = dict(head=dict(type="MultipleChoiceHead", in_channels=768, hidden_channels=1536))

train_clips = dict(type="SampleClips", num_clips=1, num_frames=1, clip_seconds=1.0, mode="random")
test_clips = dict(type="SampleClips", num_clips=16, num_frames=1, clip_seconds=1.0, mode="uniform")
train_dataloader = dict(
    dataset=dict(
        ann_file="annotations/transition_train.jsonl",
        pipeline=[dict(type="OpenVideo"), train_clips, *_base_.frames_and_text],
    )
)
val_dataloader = dict(dataset=dict(ann_file="annotations/transition_val.jsonl"))
test_dataloader = dict(
    dataset=dict(
        ann_file="annotations/transition_test.jsonl",
        pipeline=[dict(type="OpenVideo"), test_clips, *_base_.frames_and_text],
    )
)

train_cfg = dict(max_epochs=15)
optim_wrapper = dict(optimizer=dict(lr=1e-4))
auto_scale_lr = dict(enable=False, base_batch_size=256)
