# Zero-shot text-to-video retrieval on MSRVTT 1K-A by the public BLIP: 8 uniform frames joined to one clip, and the 128 best
# of each query re-ranked. The authors' figures (BLIP, Table 10; fine-tuned on COCO): R1 43.3, R5 65.6, R10 74.7, MdR 2. None
# of ours has been measured.
#   python tools/test.py configs/public/blip_base_8x1_msrvtt.py Salesforce/blip-itm-base-coco
_base_ = [
    "../_base_/models/blip_base.py",
    "../_base_/datasets/msrvtt_retrieval.py",
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
        ann_file="annotations/retrieval_test-1ka.jsonl",
        pipeline=[dict(type="OpenVideo"), test_clips, dict(type="DecodeClips"), *_base_.resize_and_text],
    )
)
test_cfg = dict(shortlist=128)
