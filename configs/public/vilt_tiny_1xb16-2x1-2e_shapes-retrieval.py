# Text-to-video retrieval by a ViLT-like model on the Shapes world, as the public checkpoints are fine-tuned: N_train = 2 random
# clips of one frame, pooled by LogSumExp, one logit and a softmax over the texts of a video; tested on 8 uniform clips in both
# directions. Starts from its pre-training.
#   python tools/train.py configs/public/vilt_tiny_1xb16-2x1-2e_shapes-retrieval.py
_base_ = [
    "../_base_/models/vilt_tiny.py",
    "../_base_/datasets/text_to_video.py",
    "../_base_/datasets/text_to_video_val.py",
    "../_base_/schedules/adamw_linear.py",
    "../_base_/default_runtime.py",
]
data_root = "{{$SHAPES_ROOT:data/shapes}}"
tokenizer = f"{data_root}/tokenizer"
captions = [f"{data_root}/pretrain.jsonl", f"{data_root}/train.jsonl"]
load_from = "work_dirs/vilt_tiny_1xb32-3e_shapes-pretrain/epoch_3.pth"

model = dict(
    head=dict(type="SoftmaxRankingHead", in_channels=128, hidden_channels=256, dropout=0.0),
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
        num_negatives=2,
        pipeline=[
            dict(type="OpenVideo"),
            dict(type="SampleClips", num_clips=2, num_frames=1, clip_seconds=1.0, mode="random"),
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
            dict(type="SampleClips", num_clips=2, num_frames=1, clip_seconds=1.0, mode="uniform"),
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
            dict(type="SampleClips", num_clips=8, num_frames=1, clip_seconds=1.0, mode="uniform"),
            dict(type="DecodeClips"),
            *spatial_and_text,
        ],
    ),
)

train_cfg = dict(max_epochs=2)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
auto_scale_lr = dict(enable=False, base_batch_size=16)
default_hooks = dict(
    checkpoint=dict(interval=2),
    checkpoint_fit=dict(reinit=["head.classifier.2"]),  # that of the pre-training has two classes
)
