# Open-ended questions: training, validation and testing with answers of a vocabulary. A leaf adds data_root, the pipelines and
# the batch size.
questions = dict(type="OpenEndedDataset", answer_file="answers.json", media_folder="videos")
train_dataloader = dict(
    collate_fn=dict(type="clipbert_mm.collate_items"),
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(questions, ann_file="qa_train.jsonl"),
)
val_dataloader = dict(
    collate_fn=dict(type="clipbert_mm.collate_items"),
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(questions, ann_file="qa_val.jsonl", test_mode=True),
)
test_dataloader = dict(
    collate_fn=dict(type="clipbert_mm.collate_items"),
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(questions, ann_file="qa_test.jsonl", test_mode=True),
)
val_cfg = dict(type="ValLoop")
val_evaluator = dict(type="AnswerAccuracy")
test_cfg = dict(type="TestLoop")
test_evaluator = dict(type="AnswerAccuracy")
