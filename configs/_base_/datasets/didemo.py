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
# Validation is cheap: a part of the videos, by one clip. A leaf with other frames sets its val_clips.
val_clips = dict(type="SampleClips", num_clips=1, num_frames=1, clip_seconds=1.0, mode="middle")
val_dataloader = dict(
    test_dataloader,
    persistent_workers=True,
    dataset=dict(
        test_dataloader["dataset"],
        ann_file="annotations/val.jsonl",
        indices=200,
        pipeline=[dict(type="OpenVideo"), val_clips, *frames_and_text],
    ),
)
val_cfg = dict(type="RetrievalValLoop")
val_evaluator = dict(type="RetrievalMetric")
