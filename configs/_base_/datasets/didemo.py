# DiDeMo paragraph-to-video retrieval (Section 4.1).
didemo = "{{$CLIPBERT_DIDEMO:data/didemo}}"
bert = "{{$CLIPBERT_BERT:bert-base-uncased}}"
tokens = [dict(type="Tokenize", tokenizer=bert, max_length=100), dict(type="PackInputs")]
# A leaf's pipelines are OpenVideo, its SampleClips and frames_and_text.
frames_and_text = [dict(type="DecodeClips"), dict(type="ResizePad", size=448), *tokens]

train_dataloader = dict(
    batch_size=8,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    collate_fn=dict(type="clipbert_mm.collate_items"),
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="RetrievalDataset",
        data_root=didemo,
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
        data_root=didemo,
        ann_file="annotations/test.jsonl",
        media_folder="videos",
        test_mode=True,
    ),
)
test_cfg = dict(type="RetrievalTestLoop")
test_evaluator = dict(type="RetrievalMetric")
