# A 3D backbone of mmaction2 learns to name colors and kinds of shapes in images, as clips of one frame. It stands for weights
# of Kinetics; a ClipBert takes over the backbone of the checkpoint and gives it clips of several frames.
#   python tools/train.py configs/video_encoders/slowonly_tiny_1xb32-5e_shapes-objects.py
_base_ = [
    "../_base_/models/clipbert_tiny.py",
    "../_base_/models/slowonly_tiny.py",
    "../_base_/schedules/adamw_linear.py",
    "../_base_/default_runtime.py",
]
data_root = "{{$SHAPES_ROOT:data/shapes}}"

model = dict(
    _delete_=True,
    type="mmpretrain.ImageClassifier",
    data_preprocessor=dict(
        type="mmpretrain.ClsDataPreprocessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True,
        num_classes=14,
        to_onehot=True,
    ),
    backbone=dict(
        type="clipbert_mm.ClipEncoder",
        num_frames=1,
        frame_size=64,
        backbone=_base_.slowonly,
    ),
    # Near to the maximum over the map: averaged over a mostly empty picture, a shape would hardly count.
    neck=dict(type="mmpretrain.GeneralizedMeanPooling", p=3.0, p_trainable=False),
    head=dict(
        type="mmpretrain.MultiLabelLinearClsHead",
        num_classes=14,
        in_channels=64,
        loss=dict(type="mmpretrain.CrossEntropyLoss", use_sigmoid=True),
        init_cfg=dict(type="Normal", layer="Linear", std=0.5),  # with the usual 0.01 kinds of shapes take far longer
    ),
)

pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="mmpretrain.ResizeEdge", scale=64, edge="long"),
    dict(type="Pad", size=(64, 64)),
    dict(type="mmpretrain.PackInputs"),
]
train_dataloader = dict(
    batch_size=32,
    num_workers=0,
    drop_last=True,
    collate_fn=dict(type="default_collate"),
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="mmpretrain.MultiLabelDataset",
        data_root=data_root,
        ann_file="objects_train.json",
        data_prefix="images",
        pipeline=pipeline,
    ),
)
test_dataloader = dict(
    batch_size=32,
    num_workers=1,
    collate_fn=dict(type="default_collate"),
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="mmpretrain.MultiLabelDataset",
        data_root=data_root,
        ann_file="objects_test.json",
        data_prefix="images",
        pipeline=pipeline,
        test_mode=True,
    ),
)
# Validation: some of the held-out images.
val_dataloader = dict(test_dataloader, dataset=dict(test_dataloader["dataset"], indices=100))

train_cfg = dict(max_epochs=5)
val_cfg = dict(type="ValLoop")
val_evaluator = dict(type="mmpretrain.AveragePrecision")
test_cfg = dict(type="TestLoop")
test_evaluator = dict(type="mmpretrain.AveragePrecision")
optim_wrapper = dict(optimizer=dict(lr=5e-3))
auto_scale_lr = dict(enable=False, base_batch_size=32)
default_hooks = dict(
    _delete_=True,  # without those that go with datasets of ours
    timer=dict(type="IterTimerHook"),
    logger=dict(type="MainProcessLoggerHook", interval=20),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(type="FaultTolerantCheckpointHook", interval=1, minutes=15, max_keep_ckpts=2, save_best="auto"),
    finite_loss=dict(type="FiniteLossHook"),
    sampler_seed=dict(type="DistSamplerSeedHook"),
    checkpoint_fit=dict(type="CheckpointCompatibilityHook"),
)
