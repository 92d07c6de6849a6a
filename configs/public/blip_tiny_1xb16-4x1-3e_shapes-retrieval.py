# Paragraph-to-video retrieval by a BLIP-like model on the Shapes world, as the public checkpoints are fine-tuned: N_train = 4
# random clips of one frame, pooled by LogSumExp, with hard negatives in the batch that the vectors choose; tested on 8 uniform
# clips in both directions. Starts from its pre-training. Each paragraph tells a whole video: a caption of one scene is true of
# other videos of the batch too.
#   python tools/train.py configs/public/blip_tiny_1xb16-4x1-3e_shapes-retrieval.py
_base_ = [
    "../_base_/models/blip_tiny.py",
    "../_base_/datasets/text_to_video.py",
    "../_base_/datasets/text_to_video_val.py",
    "../_base_/schedules/adamw_linear.py",
    "../_base_/default_runtime.py",
]
data_root = "{{$SHAPES_ROOT:data/shapes}}"
tokenizer = f"{data_root}/tokenizer"
captions = [f"{data_root}/pretrain.jsonl", f"{data_root}/train.jsonl"]
load_from = "work_dirs/blip_tiny_1xb32-1e_shapes-pretrain/epoch_1.pth"

model = dict(
    head=dict(
        type="SimilarityMatchingHead",
        in_channels=128,
        init_cfg=dict(type="Normal", layer="Linear", std=0.08),  # with the usual 0.02 matching is learnt far later
    )
)

spatial_and_text = [
    dict(type="ResizeTo", size=[64, 64], interpolation="bicubic"),
    dict(type="Tokenize", tokenizer=tokenizer, max_length=64, train_on=captions, vocab_size=200),
    dict(type="PackInputs"),
]
train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    drop_last=True,
    dataset=dict(
        data_root=data_root,
        ann_file="paragraph_train.jsonl",
        num_negatives=0,
        pipeline=[
            dict(type="OpenVideo"),
            dict(type="SampleClips", num_clips=4, num_frames=1, clip_seconds=1.0, mode="random"),
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
        ann_file="paragraph_test.jsonl",
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
        ann_file="paragraph_test.jsonl",
        pipeline=[
            dict(type="OpenVideo"),
            dict(type="SampleClips", num_clips=8, num_frames=1, clip_seconds=1.0, mode="uniform"),
            dict(type="DecodeClips"),
            *spatial_and_text,
        ],
    ),
)

train_cfg = dict(max_epochs=3)
optim_wrapper = dict(optimizer=dict(lr=2e-4))
auto_scale_lr = dict(enable=False, base_batch_size=16)
default_hooks = dict(checkpoint=dict(interval=3))
