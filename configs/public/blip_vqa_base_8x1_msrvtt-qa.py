# Zero-shot MSRVTT-QA by the public BLIP for questions: 8 uniform frames joined to one clip, and the answers of the
# dataset ranked by the decoder's likelihood. The authors' figure: 19.2 %. None of ours has been measured.
#   python tools/test.py configs/public/blip_vqa_base_8x1_msrvtt-qa.py Salesforce/blip-vqa-base
_base_ = [
    "../_base_/models/blip_vqa_base.py",
    "../_base_/datasets/msrvtt_qa.py",
    "../_base_/default_runtime.py",
]

train_dataloader = None
val_dataloader = None
val_cfg = None
val_evaluator = None
test_clips = dict(type="SampleClips", num_clips=8, num_frames=1, mode="segments")
test_dataloader = dict(
    dataset=dict(
        ann_file="annotations/qa_test.jsonl",
        pipeline=[dict(type="OpenVideo"), test_clips, dict(type="DecodeClips"), *_base_.resize_and_text],
    )
)
