# COCO and Visual Genome captions for image-text pre-training (Section 3): two captions an image share a visual pass. A leaf
# adds the datasets.
pretrain = "{{$CLIPBERT_PRETRAIN:data/pretrain}}"
train_dataloader = dict(
    batch_size=32,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    collate_fn=dict(type="clipbert_mm.collate_items"),
    sampler=dict(type="DefaultSampler", shuffle=True),
)
