# TGIF-QA action and transition: multiple choice of five options (Section 4.1).
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
        type="MultipleChoiceDataset",
        data_root=tgif,
        media_folder="gifs",
    ),
)
test_dataloader = dict(
    batch_size=4,
    num_workers=4,
    collate_fn=dict(type="clipbert_mm.collate_items"),
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="MultipleChoiceDataset",
        data_root=tgif,
        media_folder="gifs",
        test_mode=True,
    ),
)
test_cfg = dict(type="TestLoop")
test_evaluator = dict(type="AnswerAccuracy")
