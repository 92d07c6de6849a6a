# Image and text retrieval on COCO, Karpathy's 5,000 test images of five captions each, by the public BLIP, as a
# check of the whole path: the 256 best images and the 256 best texts of each query re-ranked. The authors' figures (LAVIS):
# image retrieval R1 64.5, R5 86.0, text retrieval R1 82.0, R5 95.8. None of ours has been measured.
#   python tools/test.py configs/public/blip_base_1x1_coco.py Salesforce/blip-itm-base-coco
_base_ = [
    "../_base_/models/blip_base.py",
    "../_base_/datasets/text_to_video.py",
    "../_base_/default_runtime.py",
]
coco = "{{$CLIPBERT_COCO:data/coco}}"

train_dataloader = None
test_dataloader = dict(
    batch_size=8,
    num_workers=4,
    dataset=dict(
        data_root=coco,
        ann_file="annotations/retrieval_test.jsonl",
        media_folder="images",
        pipeline=[dict(type="LoadImage"), *_base_.resize_and_text],
    ),
)
test_cfg = dict(shortlist=256)
