# NExT-QA open-ended questions by WUPS, 1,500 answers.
#   bash tools/dist_train.sh configs/other_datasets/clipbert_r50_4xb16-8x2-10e_nextqa-oe.py 4
_base_ = "../_base_/other_datasets/open_ended_qa.py"
nextqa = "{{$CLIPBERT_NEXTQA:data/nextqa}}"
answers = "annotations/oe_answers.json"
model = dict(head=dict(num_answers=1500))
train_dataloader = dict(dataset=dict(data_root=nextqa, ann_file="annotations/oe_train.jsonl", answer_file=answers))
val_dataloader = dict(dataset=dict(data_root=nextqa, ann_file="annotations/oe_val.jsonl", answer_file=answers))
test_dataloader = dict(dataset=dict(data_root=nextqa, ann_file="annotations/oe_test.jsonl", answer_file=answers))
wups = dict(
    type="WUPS",  # needs NLTK and its data, see docs/datasets.md
    answer_file=f"{nextqa}/{answers}",
    stop_words=f"{nextqa}/stopwords.txt",
    # As the publisher reports them.
    groups=dict(causal=["CW", "CH"], temporal=["TC", "TN"], descriptive=["DC", "DL", "DO", "DB"]),
)
val_evaluator = wups
test_evaluator = wups
