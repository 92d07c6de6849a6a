# Zero-shot text-to-video retrieval on MSRVTT 1K-A by the public CLIP ViT-B/32: the mean vector of 12 uniform frames. Figures
# of CLIP4Clip's authors (Luo et al., 2021): R1 31.2, R5 53.7, R10 64.2. None of ours has been measured.
#   python tools/test.py configs/public/clip_vit-b32_12x1_msrvtt.py openai/clip-vit-base-patch32
_base_ = [
    "../_base_/models/clip_vit-b32.py",
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
