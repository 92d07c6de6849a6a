# Text-to-video retrieval by the paper's recipe on the Shapes world: from N_train = 2 random clips of T = 2 frames, pooled by
# LogSumExp (appendix B), tested on 8 uniform clips in both directions; starts from its pre-training.
#   python tools/train.py configs/shapes/clipbert_tiny_1xb16-2x2-4e_shapes-retrieval.py
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
    # Batch norms keep the statistics of pre-training, as the paper's are frozen.
    backbone=dict(norm_eval=True),
    # A color and a kind of shape, as in queries.jsonl, are in one video of twelve; in training one pair of four matches.
    head=dict(type="MatchingHead", in_channels=128, hidden_channels=256, dropout=0.0, prior=(0.25, 0.08)),
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
        num_negatives=3,
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

train_cfg = dict(max_epochs=4)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
auto_scale_lr = dict(enable=False, base_batch_size=16)
default_hooks = dict(checkpoint=dict(interval=2))
