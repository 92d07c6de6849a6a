# Zero-shot image and text retrieval on COCO, Karpathy's 5,000 test images of five captions each, by the public SigLIP 2 base,
# as a check of the whole path: images by their vectors. The authors' figures: image retrieval R1 52.1, text retrieval R1
# 68.9. None of ours has been measured.
#   python tools/test.py configs/public/siglip2_base_1x1_coco.py google/siglip2-base-patch16-224
_base_ = [
    "../_base_/models/siglip2_base.py",
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
