# Image-text pre-training: captions, some replaced by another image's; tested by both objectives on images that were not trained
# on. A leaf adds data_root, the pipelines and the batch size.
train_dataloader = dict(
    collate_fn=dict(type="clipbert_mm.collate_items"),
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(type="PretrainingDataset", ann_file="pretrain.jsonl", media_folder="images", captions_per_item=2),
)
test_dataloader = dict(
    collate_fn=dict(type="clipbert_mm.collate_items"),
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="PretrainingDataset", ann_file="pretrain_test.jsonl", media_folder="images", test_mode=True),
)
test_cfg = dict(type="TestLoop")
test_evaluator = dict(type="PretrainingAccuracy")
