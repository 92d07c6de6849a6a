# Zero-shot image and text retrieval on COCO, Karpathy's 5,000 test images of five captions each, by the public CLIP ViT-B/32,
# as a check of the whole path: images by their vectors. CLIP's paper has no figures of this size, and none of ours has been
# measured.
#   python tools/test.py configs/public/clip_vit-b32_1x1_coco.py openai/clip-vit-base-patch32
_base_ = [
    "../_base_/models/clip_vit-b32.py",
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
