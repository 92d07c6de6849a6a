# Image-text pre-training: captions, some replaced by another image's. A leaf adds data_root, the pipeline and the batch size.
train_dataloader = dict(
    collate_fn=dict(type="clipbert_mm.collate_items"),
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(type="PretrainingDataset", ann_file="pretrain.jsonl", media_folder="images", captions_per_item=2),
)
