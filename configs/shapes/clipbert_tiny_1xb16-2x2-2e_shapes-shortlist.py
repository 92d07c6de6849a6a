# Vectors of texts and clips for the model of clipbert_tiny_1xb16-2x2-4e_shapes-retrieval.py, learnt from its scores. By them a
# search chooses the videos that the model then scores. The model itself stays as it is.
#   python tools/train.py configs/shapes/clipbert_tiny_1xb16-2x2-2e_shapes-shortlist.py
_base_ = [
    "../_base_/models/clipbert_tiny.py",
    "../_base_/datasets/text_to_video.py",
    "../_base_/datasets/text_to_video_val.py",
    "../_base_/schedules/adamw_linear.py",
    "../_base_/default_runtime.py",
]
data_root = "{{$SHAPES_ROOT:data/shapes}}"
tokenizer = f"{data_root}/tokenizer"
captions = [f"{data_root}/pretrain.jsonl", f"{data_root}/train.jsonl"]
load_from = "work_dirs/clipbert_tiny_1xb16-2x2-4e_shapes-retrieval/epoch_4.pth"

model = dict(
    backbone=dict(norm_eval=True),
    encoder=dict(vector_size=64),
    head=dict(type="MatchingHead", in_channels=128, hidden_channels=256, dropout=0.0, prior=(0.25, 0.08)),
    distillation=dict(type="VectorDistillation"),
)

spatial_and_text = [
    dict(type="ResizePad", size=64),
    dict(type="Tokenize", tokenizer=tokenizer, max_length=64, train_on=captions, vocab_size=200),
    dict(type="PackInputs"),
]
train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    drop_last=True,
    dataset=dict(
        data_root=data_root,
        captions_per_item=3,
        num_negatives=0,  # the other videos of the batch are there
        pipeline=[
            dict(type="OpenVideo"),
            dict(type="SampleClips", num_clips=2, num_frames=2, clip_seconds=1.0, mode="random"),
            dict(type="DecodeClips"),
            *spatial_and_text,
        ],
    ),
)
val_dataloader = dict(
    batch_size=16,
    num_workers=0,
    dataset=dict(
        data_root=data_root,
        ann_file="test.jsonl",
        indices=32,
        pipeline=[
            dict(type="OpenVideo"),
            dict(type="SampleClips", num_clips=2, num_frames=2, clip_seconds=1.0, mode="uniform"),
            dict(type="DecodeClips"),
            *spatial_and_text,
        ],
    ),
)
test_dataloader = dict(
    batch_size=16,
    num_workers=1,
    dataset=dict(
        data_root=data_root,
        pipeline=[
            dict(type="OpenVideo"),
            dict(type="SampleClips", num_clips=8, num_frames=2, clip_seconds=1.0, mode="uniform"),
            dict(type="DecodeClips"),
            *spatial_and_text,
        ],
    ),
)
# The joint encoder scores the tenth of the videos that the vectors choose, in both directions.
val_cfg = dict(shortlist=0.1)
test_cfg = dict(shortlist=0.1)

train_cfg = dict(max_epochs=2)
optim_wrapper = dict(optimizer=dict(lr=3e-3))
auto_scale_lr = dict(enable=False, base_batch_size=16)
