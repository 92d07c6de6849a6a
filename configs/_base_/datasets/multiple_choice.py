# Multiple choice: training, validation and testing on questions with options of their own. A leaf adds
# data_root, the pipelines and the batch size.
questions = dict(type="MultipleChoiceDataset", media_folder="videos")
train_dataloader = dict(
    collate_fn=dict(type="clipbert_mm.collate_items"),
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(questions, ann_file="choice_train.jsonl"),
)
val_dataloader = dict(
    collate_fn=dict(type="clipbert_mm.collate_items"),
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(questions, ann_file="choice_val.jsonl", test_mode=True),
)
test_dataloader = dict(
    collate_fn=dict(type="clipbert_mm.collate_items"),
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(questions, ann_file="choice_test.jsonl", test_mode=True),
)
val_cfg = dict(type="ValLoop")
val_evaluator = dict(type="AnswerAccuracy")
test_cfg = dict(type="TestLoop")
test_evaluator = dict(type="AnswerAccuracy")
