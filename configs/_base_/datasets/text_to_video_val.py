# Validation of text-to-video retrieval, to go with text_to_video.py. A leaf adds data_root, the pipeline, the batch size and,
# by indices, a part of the videos, since every text is scored with every video.
val_dataloader = dict(
    collate_fn=dict(type="clipbert_mm.collate_items"),
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="RetrievalDataset", ann_file="val.jsonl", media_folder="videos", test_mode=True),
)
val_cfg = dict(type="RetrievalValLoop")
val_evaluator = dict(type="RetrievalMetric")
