# Zero-shot text-to-video retrieval on DiDeMo (paragraphs) by the public BLIP: 8 uniform frames joined to one clip, and the
# 128 best of each query re-ranked. Neither the authors' figures nor ours are known for it.
#   python tools/test.py configs/public/blip_base_8x1_didemo.py Salesforce/blip-itm-base-coco
_base_ = [
    "../_base_/models/blip_base.py",
    "../_base_/datasets/didemo.py",
    "../_base_/default_runtime.py",
]

model = dict(clip_fusion=dict(type="ConcatClips"))

train_dataloader = None
val_dataloader = None
val_cfg = None
val_evaluator = None
test_clips = dict(type="SampleClips", num_clips=8, num_frames=1, mode="segments")
test_dataloader = dict(
    dataset=dict(
        pipeline=[dict(type="OpenVideo"), test_clips, dict(type="DecodeClips"), *_base_.resize_and_text],
    )
)
test_cfg = dict(shortlist=128)
