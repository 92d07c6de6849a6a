# Zero-shot text-to-video retrieval on MSRVTT 1K-A by the public SigLIP 2 base: the mean vector of 12 uniform frames. Neither
# the authors' figures nor ours are known for it.
#   python tools/test.py configs/public/siglip2_base_12x1_msrvtt.py google/siglip2-base-patch16-224
_base_ = [
    "../_base_/models/siglip2_base.py",
    "../_base_/datasets/msrvtt_retrieval.py",
    "../_base_/default_runtime.py",
]

train_dataloader = None
val_dataloader = None
val_cfg = None
val_evaluator = None
test_clips = dict(type="SampleClips", num_clips=12, num_frames=1, mode="segments")
test_dataloader = dict(
    dataset=dict(
        ann_file="annotations/retrieval_test-1ka.jsonl",
        pipeline=[dict(type="OpenVideo"), test_clips, dict(type="DecodeClips"), *_base_.resize_and_text],
    )
)
