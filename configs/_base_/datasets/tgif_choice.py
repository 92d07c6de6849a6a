# TGIF-QA action and transition: multiple choice of five options (Section 4.1). A leaf adds the pipelines.
tgif = "{{$CLIPBERT_TGIF:data/tgif_qa}}"
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
