# TGIF-QA count, the future work of the paper (Section 4.1).
tgif = "{{$CLIPBERT_TGIF:data/tgif_qa}}"
bert = "{{$CLIPBERT_BERT:bert-base-uncased}}"
tokens = [dict(type="Tokenize", tokenizer=bert, max_length=25), dict(type="PackInputs")]
# A leaf's pipelines are OpenVideo, its SampleClips and frames_and_text.
frames_and_text = [dict(type="DecodeClips"), dict(type="ResizePad", size=448), *tokens]

train_dataloader = dict(
    batch_size=32,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    collate_fn=dict(type="clipbert_mm.collate_items"),
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="CountDataset",
        data_root=tgif,
        ann_file="annotations/count_train.jsonl",
        media_folder="gifs",
    ),
)
test_dataloader = dict(
    batch_size=4,
    num_workers=4,
    collate_fn=dict(type="clipbert_mm.collate_items"),
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="CountDataset",
        data_root=tgif,
        ann_file="annotations/count_test.jsonl",
        media_folder="gifs",
        test_mode=True,
    ),
)
test_cfg = dict(type="TestLoop")
test_evaluator = dict(type="CountError", low=1, high=10)
# Validation is cheap: by four frames. The converter writes the file with --val-share.
val_clips = dict(type="SampleClips", num_clips=4, num_frames=1, clip_seconds=1.0, mode="uniform")
val_dataloader = dict(
    test_dataloader,
    persistent_workers=True,
    dataset=dict(
        test_dataloader["dataset"],
        ann_file="annotations/count_val.jsonl",
        pipeline=[dict(type="OpenVideo"), val_clips, *frames_and_text],
    ),
)
val_cfg = dict(type="ValLoop")
val_evaluator = dict(type="CountError", low=1, high=10)
