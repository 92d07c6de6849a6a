# MSRVTT multiple-choice test: the caption of a video among five (Section 4.1). It has no training part: a retrieval model ranks
# the options. A leaf adds the pipeline.
msrvtt = "{{$CLIPBERT_MSRVTT:data/msrvtt}}"
test_dataloader = dict(
    batch_size=4,
    num_workers=4,
    collate_fn=dict(type="clipbert_mm.collate_items"),
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="MultipleChoiceDataset",
        data_root=msrvtt,
        ann_file="annotations/mc_test.jsonl",
        media_folder="videos",
        test_mode=True,
    ),
)
test_cfg = dict(type="TestLoop")
test_evaluator = dict(type="AnswerAccuracy")
