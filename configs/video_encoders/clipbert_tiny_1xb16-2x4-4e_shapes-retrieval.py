# The 2D twin of clipbert_tiny-slowonly_1xb16-2x4-4e_shapes-retrieval.py: the same clips, N_train = 2 of T = 4 frames, by a 2D
# backbone over each frame and the mean of their maps, as in the paper (Section 3); starts from pre-training in configs/shapes.
#   python tools/train.py configs/video_encoders/clipbert_tiny_1xb16-2x4-4e_shapes-retrieval.py
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
load_from = "work_dirs/clipbert_tiny_1xb32-4e_shapes-pretrain/epoch_4.pth"

model = dict(
    backbone=dict(norm_eval=True),  # the statistics are those of the pre-training
    # A color and a kind of shape, as in queries.jsonl, are in one video of twelve; in training one pair of five matches.
    head=dict(type="MatchingHead", in_channels=128, hidden_channels=256, dropout=0.0, prior=(0.2, 0.08)),
    pack_pairs=True,
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
        num_negatives=4,
        pipeline=[
            dict(type="OpenVideo"),
            dict(type="SampleClips", num_clips=2, num_frames=4, clip_seconds=1.0, mode="random"),
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
            dict(type="SampleClips", num_clips=2, num_frames=4, clip_seconds=1.0, mode="uniform"),
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
            dict(type="SampleClips", num_clips=8, num_frames=4, clip_seconds=1.0, mode="uniform"),
            dict(type="DecodeClips"),
            *spatial_and_text,
        ],
    ),
)

train_cfg = dict(max_epochs=4)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
auto_scale_lr = dict(enable=False, base_batch_size=16)
default_hooks = dict(checkpoint=dict(interval=2))
