# MSRVTT retrieval with a 3D transformer over T = 16 frames: mmaction2's Video Swin-T, which attends within windows of space and
# time. Not in the paper, which argues for 2D (Section 3); docs/video_encoders.md sets it beside 2D backbones.
#   bash tools/dist_train.sh configs/video_encoders/clipbert_swin-tiny_8xb16-2x16-20e_msrvtt.py 8
_base_ = [
    "../_base_/models/clipbert_r50_bert-base.py",
    "../_base_/datasets/msrvtt_retrieval.py",
    "../_base_/schedules/adamw_linear.py",
    "../_base_/default_runtime.py",
]
# mmaction2's of Kinetics-400; the transformer is that of image-text pre-training.
kinetics = "{{$CLIPBERT_VIDEO_WEIGHTS:https://download.openmmlab.com/mmaction/v1.0/recognition/swin/swin-tiny-p244-w877_in1k-pre_8xb8-amp-32x2x1-30e_kinetics400-rgb/swin-tiny-p244-w877_in1k-pre_8xb8-amp-32x2x1-30e_kinetics400-rgb_20220930-241016b2.pth}}"
load_from = [_base_.pretrained, kinetics]

model = dict(
    data_preprocessor=dict(std=[58.395, 57.12, 57.375], to_bgr=False),
    backbone=dict(
        _delete_=True,
        type="ClipEncoder",
        num_frames=16,
        frame_size=224,
        backbone=dict(type="mmaction.SwinTransformer3D", arch="tiny", drop_path_rate=0.1),
    ),
    projection=dict(in_channels=768, pool=False),  # the map has 7 x 7 cells
    head=dict(type="MatchingHead", in_channels=768, hidden_channels=1536),
)

frames_and_text = [dict(type="DecodeClips"), dict(type="ResizePad", size=224), *_base_.tokens]
train_clips = dict(type="SampleClips", num_clips=2, num_frames=16, clip_seconds=2.0, mode="random")
val_clips = dict(type="SampleClips", num_clips=2, num_frames=16, clip_seconds=2.0, mode="uniform")
test_clips = dict(type="SampleClips", num_clips=8, num_frames=16, clip_seconds=2.0, mode="uniform")
train_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), train_clips, *frames_and_text]))
val_dataloader = dict(dataset=dict(indices=300, pipeline=[dict(type="OpenVideo"), val_clips, *frames_and_text]))
test_dataloader = dict(
    dataset=dict(
        ann_file="annotations/retrieval_test-1ka.jsonl",
        pipeline=[dict(type="OpenVideo"), test_clips, *frames_and_text],
    )
)

train_cfg = dict(max_epochs=20)
optim_wrapper = dict(optimizer=dict(lr=5e-5))
auto_scale_lr = dict(enable=False, base_batch_size=128)
default_hooks = dict(checkpoint_fit=dict(reinit=["projection"]))  # of 768 channels instead of a ResNet-50's 2,048
