# ActivityNet Captions paragraph-to-video retrieval, tested on val1 (Section 4.1). A leaf adds the pipelines.
activitynet = "{{$CLIPBERT_ACTIVITYNET:data/activitynet}}"
train_dataloader = dict(
    batch_size=16,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    collate_fn=dict(type="clipbert_mm.collate_items"),
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="RetrievalDataset",
        data_root=activitynet,
        ann_file="annotations/train.jsonl",
        media_folder="videos",
    ),
)
test_dataloader = dict(
    batch_size=4,
    num_workers=4,
    collate_fn=dict(type="clipbert_mm.collate_items"),
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="RetrievalDataset",
        data_root=activitynet,
        ann_file="annotations/val1.jsonl",
        media_folder="videos",
        test_mode=True,
    ),
)
test_cfg = dict(type="RetrievalTestLoop")
test_evaluator = dict(type="RetrievalMetric")
