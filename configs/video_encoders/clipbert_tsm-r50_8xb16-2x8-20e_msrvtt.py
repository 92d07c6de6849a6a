# MSRVTT retrieval with a 2D video backbone over T = 8 frames: mmaction2's TSM-R50, which shifts channels in time. Not in the
# paper; docs/video_encoders.md sets it beside 3D backbones.
#   bash tools/dist_train.sh configs/video_encoders/clipbert_tsm-r50_8xb16-2x8-20e_msrvtt.py 8
_base_ = [
    "../_base_/models/clipbert_r50_bert-base.py",
    "../_base_/datasets/msrvtt_retrieval.py",
    "../_base_/schedules/adamw_linear.py",
    "../_base_/default_runtime.py",
]
# mmaction2's of Kinetics-400; the transformer is that of image-text pre-training.
kinetics = "{{$CLIPBERT_VIDEO_WEIGHTS:https://download.openmmlab.com/mmaction/v1.0/recognition/tsm/tsm_imagenet-pretrained-r50_8xb16-1x1x8-50e_kinetics400-rgb/tsm_imagenet-pretrained-r50_8xb16-1x1x8-50e_kinetics400-rgb_20220831-64d69186.pth}}"
load_from = [_base_.pretrained, kinetics]

model = dict(
    data_preprocessor=dict(std=[58.395, 57.12, 57.375], to_bgr=False),
    backbone=dict(
        _delete_=True,
        type="ClipEncoder",
        num_frames=8,
        frame_size=224,
        layout="frames",
        backbone=dict(type="mmaction.ResNetTSM", depth=50, num_segments=8, shift_div=8, norm_eval=True),
    ),
    projection=dict(pool=False),  # the map has 7 x 7 cells
    head=dict(type="MatchingHead", in_channels=768, hidden_channels=1536),
)

frames_and_text = [dict(type="DecodeClips"), dict(type="ResizePad", size=224), *_base_.tokens]
train_clips = dict(type="SampleClips", num_clips=2, num_frames=8, clip_seconds=2.0, mode="random")
val_clips = dict(type="SampleClips", num_clips=2, num_frames=8, clip_seconds=2.0, mode="uniform")
test_clips = dict(type="SampleClips", num_clips=8, num_frames=8, clip_seconds=2.0, mode="uniform")
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
