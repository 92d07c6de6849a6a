# ActivityNet Captions paragraph-to-video retrieval, tested on val1 (Section 4.1).
activitynet = "{{$CLIPBERT_ACTIVITYNET:data/activitynet}}"
bert = "{{$CLIPBERT_BERT:bert-base-uncased}}"
tokens = [dict(type="Tokenize", tokenizer=bert, max_length=100), dict(type="PackInputs")]
# A leaf's pipelines are OpenVideo, its SampleClips and frames_and_text.
frames_and_text = [dict(type="DecodeClips"), dict(type="ResizePad", size=448), *tokens]

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
# All published videos but those of training are tested: validation takes a part of them, by the middle clip.
val_clips = dict(type="SampleClips", num_clips=1, num_frames=2, clip_seconds=2.0, mode="middle")
val_dataloader = dict(
    test_dataloader,
    persistent_workers=True,
    dataset=dict(
        test_dataloader["dataset"], indices=300, pipeline=[dict(type="OpenVideo"), val_clips, *frames_and_text]
    ),
)
val_cfg = dict(type="RetrievalValLoop")
val_evaluator = dict(type="RetrievalMetric")
