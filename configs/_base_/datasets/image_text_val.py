# Validation of image-text pre-training, to go with image_text.py. A leaf adds data_root, the pipeline and the batch size.
val_dataloader = dict(
    collate_fn=dict(type="clipbert_mm.collate_items"),
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="PretrainingDataset", ann_file="pretrain_val.jsonl", media_folder="images", test_mode=True),
)
val_cfg = dict(type="ValLoop")
val_evaluator = dict(type="PretrainingAccuracy")
