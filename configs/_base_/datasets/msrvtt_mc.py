# MSRVTT multiple-choice test: the caption of a video among five (Section 4.1). It has no training part: a retrieval model ranks
# the options.
msrvtt = "{{$CLIPBERT_MSRVTT:data/msrvtt}}"
bert = "{{$CLIPBERT_BERT:bert-base-uncased}}"
tokens = [dict(type="Tokenize", tokenizer=bert, max_length=20), dict(type="PackInputs")]
# A leaf's pipeline is OpenVideo, its SampleClips and frames_and_text.
frames_and_text = [dict(type="DecodeClips"), dict(type="ResizePad", size=448), *tokens]

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
