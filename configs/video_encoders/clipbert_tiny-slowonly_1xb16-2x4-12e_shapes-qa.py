# A 3D backbone of mmaction2 in the place of F_v, on the Shapes world: open-ended questions, from N_train = 2 random clips of
# T = 4 frames; starts from its pre-training on images.
#   python tools/train.py configs/video_encoders/clipbert_tiny-slowonly_1xb16-2x4-12e_shapes-qa.py
_base_ = [
    "../_base_/models/clipbert_tiny.py",
    "../_base_/schedules/adamw_linear.py",
    "../_base_/default_runtime.py",
]
data_root = "{{$SHAPES_ROOT:data/shapes}}"
tokenizer = f"{data_root}/tokenizer"
captions = [f"{data_root}/pretrain.jsonl", f"{data_root}/train.jsonl"]
load_from = "work_dirs/clipbert_tiny-slowonly_1xb32-4e_shapes-pretrain/epoch_4.pth"

model = dict(
    backbone=dict(
        _delete_=True,
        type="ClipEncoder",
        num_frames=4,
        frame_size=64,
        backbone=dict(
            type="mmaction.ResNet3dSlowOnly",
            depth=18,
            lateral=False,
            base_channels=16,
            num_stages=3,
            conv1_kernel=(1, 3, 3),
            pool1_stride_s=1,
            spatial_strides=(1, 2, 2),
            temporal_strides=(1, 1, 1),
            dilations=(1, 1, 1),
            inflate=(0, 0, 1),
            out_indices=(2,),
            zero_init_residual=False,
            norm_eval=True,  # the statistics are those of the pre-training
        ),
    ),
    head=dict(type="OpenEndedHead", in_channels=128, num_answers=14, hidden_channels=256, dropout=0.0),
)

frames_and_text = [
    dict(type="DecodeClips"),
    dict(type="ResizePad", size=64),
    dict(type="Tokenize", tokenizer=tokenizer, max_length=64, train_on=captions, vocab_size=200),
    dict(type="PackInputs"),
]
train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    drop_last=True,
    collate_fn=dict(type="clipbert_mm.collate_items"),
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="OpenEndedDataset",
        data_root=data_root,
        ann_file="qa_train.jsonl",
        answer_file="answers.json",
        media_folder="videos",
        pipeline=[
            dict(type="OpenVideo"),
            dict(type="SampleClips", num_clips=2, num_frames=4, clip_seconds=1.0, mode="random"),
            *frames_and_text,
        ],
    ),
)
test_dataloader = dict(
    batch_size=16,
    num_workers=1,
    collate_fn=dict(type="clipbert_mm.collate_items"),
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="OpenEndedDataset",
        data_root=data_root,
        ann_file="qa_test.jsonl",
        answer_file="answers.json",
        media_folder="videos",
        test_mode=True,
        pipeline=[
            dict(type="OpenVideo"),
            dict(type="SampleClips", num_clips=8, num_frames=4, clip_seconds=1.0, mode="uniform"),
            *frames_and_text,
        ],
    ),
)
# Validation: some of the held-out videos, by fewer clips.
val_dataloader = dict(
    test_dataloader,
    dataset=dict(
        test_dataloader["dataset"],
        indices=50,
        pipeline=[
            dict(type="OpenVideo"),
            dict(type="SampleClips", num_clips=4, num_frames=4, clip_seconds=1.0, mode="uniform"),
            *frames_and_text,
        ],
    ),
)

train_cfg = dict(max_epochs=12)
val_cfg = dict(type="ValLoop")
val_evaluator = dict(type="AnswerAccuracy")
test_cfg = dict(type="TestLoop")
test_evaluator = dict(type="AnswerAccuracy")
optim_wrapper = dict(optimizer=dict(lr=5e-4))
auto_scale_lr = dict(enable=False, base_batch_size=16)
default_hooks = dict(
    checkpoint=dict(interval=12),
    checkpoint_fit=dict(reinit=["head"]),  # other answers than in pre-training
)
