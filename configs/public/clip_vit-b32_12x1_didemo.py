# Zero-shot text-to-video retrieval on DiDeMo (paragraphs) by the public CLIP ViT-B/32: the mean vector of 12 uniform frames.
# Neither the authors' figures nor ours are known for it.
#   python tools/test.py configs/public/clip_vit-b32_12x1_didemo.py openai/clip-vit-base-patch32
_base_ = [
    "../_base_/models/clip_vit-b32.py",
    "../_base_/datasets/didemo.py",
    "../_base_/default_runtime.py",
]

train_dataloader = None
val_dataloader = None
val_cfg = None
val_evaluator = None
test_clips = dict(type="SampleClips", num_clips=12, num_frames=1, mode="segments")
test_dataloader = dict(
    dataset=dict(
        pipeline=[dict(type="OpenVideo"), test_clips, dict(type="DecodeClips"), *_base_.resize_and_text],
    )
)
