# Text-to-video retrieval: training on captions and negatives, testing of every text against every video. A leaf adds
# data_root, the pipelines and the batch size.
train_dataloader = dict(
    collate_fn=dict(type="clipbert_mm.collate_items"),
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(type="RetrievalDataset", ann_file="train.jsonl", media_folder="videos"),
)
test_dataloader = dict(
    collate_fn=dict(type="clipbert_mm.collate_items"),
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="RetrievalDataset", ann_file="test.jsonl", media_folder="videos", test_mode=True),
)
test_cfg = dict(type="RetrievalTestLoop")
test_evaluator = dict(type="RetrievalMetric")
