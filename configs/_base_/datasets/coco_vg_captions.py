# COCO and Visual Genome captions for image-text pre-training (Section 3): two captions an image share a visual pass. Tested by
# both objectives on the 5,000 validation images of COCO, which it is not trained on. A leaf adds the datasets.
pretrain = "{{$CLIPBERT_PRETRAIN:data/pretrain}}"
train_dataloader = dict(
    batch_size=32,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    collate_fn=dict(type="clipbert_mm.collate_items"),
    sampler=dict(type="DefaultSampler", shuffle=True),
)
test_dataloader = dict(
    batch_size=32,
    num_workers=4,
    collate_fn=dict(type="clipbert_mm.collate_items"),
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="PretrainingDataset",
        data_root=pretrain,
        ann_file="annotations/pretrain_coco-val.jsonl",
        media_folder="coco",
        test_mode=True,
    ),
)
test_cfg = dict(type="TestLoop")
test_evaluator = dict(type="PretrainingAccuracy")
# Validation is on a part of the images of the test.
val_dataloader = dict(
    test_dataloader,
    persistent_workers=True,
    dataset=dict(test_dataloader["dataset"], indices=1000),
)
val_cfg = dict(type="ValLoop")
val_evaluator = dict(type="PretrainingAccuracy")
