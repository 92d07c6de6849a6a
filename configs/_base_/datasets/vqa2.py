# VQA 2.0: image questions with soft scores, 3,129 answers (appendix A), tested on validation. A leaf adds the pipelines.
vqa2 = "{{$CLIPBERT_VQA:data/vqa2}}"
train_dataloader = dict(
    batch_size=32,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    collate_fn=dict(type="clipbert_mm.collate_items"),
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="SoftAnswerDataset",
        data_root=vqa2,
        ann_file="annotations/vqa_train.jsonl",
        answer_file="annotations/vqa_answers.json",
        media_folder="images",
    ),
)
test_dataloader = dict(
    batch_size=4,
    num_workers=4,
    collate_fn=dict(type="clipbert_mm.collate_items"),
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="SoftAnswerDataset",
        data_root=vqa2,
        ann_file="annotations/vqa_val.jsonl",
        answer_file="annotations/vqa_answers.json",
        media_folder="images",
        test_mode=True,
    ),
)
test_cfg = dict(type="TestLoop")
test_evaluator = dict(type="VQAAccuracy", answer_file=f"{vqa2}/annotations/vqa_answers.json")
# The test server has the test split, so that training may validate on the split of that name: a part of its 40,504 images.
val_dataloader = dict(
    test_dataloader,
    batch_size=32,
    persistent_workers=True,
    dataset=dict(test_dataloader["dataset"], indices=8000),
)
val_cfg = dict(type="ValLoop")
val_evaluator = dict(type="VQAAccuracy", answer_file=f"{vqa2}/annotations/vqa_answers.json")
